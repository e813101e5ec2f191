//! `server.workers`, the only key that accepts a word, a number or a list.

use std::fmt;

use schemars::json_schema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::At;
use super::maybe::some_valid;

/// The number of CPUs in an affinity mask, see sched_setaffinity(2).
const MAX_WORKERS: u64 = 1024;

/// `server.workers`
#[derive(Clone, Debug)]
pub(in crate::config) enum Workers {
    Auto,
    /// 1 to [`MAX_WORKERS`].
    Count(u64),
    /// CPU ids, each below [`MAX_WORKERS`]. Invalid ones are reported and left out.
    Cpus(Vec<At<CpuId>>),
}

/// The id of a CPU, as `lscpu -e` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) struct CpuId(pub(in crate::config) usize);

has_schema!(Workers, "Workers", {
    let id = json_schema!({ "type": "integer", "minimum": 0, "maximum": MAX_WORKERS - 1 });
    json_schema!({
        "type": ["string", "integer", "array"],
        "pattern": "^auto$",
        "minimum": 1,
        "maximum": MAX_WORKERS,
        "items": id,
        "minItems": 1,
        "uniqueItems": true,
        "x-type": "\"auto\", a number from 1 to 1024, or a list of CPU ids from 0 to 1023",
    })
});

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;

        impl<'de> Visitor<'de> for Kinds {
            type Value = Workers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", a number or a list")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Workers, E> {
                match text {
                    "auto" => Ok(Workers::Auto),
                    other => Err(E::unknown_variant(other, &["auto"])),
                }
            }

            fn visit_u64<E: Error>(self, count: u64) -> Result<Workers, E> {
                Ok(Workers::Count(count))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, ids: A) -> Result<Workers, A::Error> {
                some_valid(SeqAccessDeserializer::new(ids)).map(Workers::Cpus)
            }
        }

        deserializer.deserialize_any(Kinds)
    }
}

impl<'de> Deserialize<'de> for CpuId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = u64::deserialize(deserializer).ok().filter(|id| *id < MAX_WORKERS);
        let id = id.and_then(|id| usize::try_from(id).ok());
        id.map(CpuId).ok_or_else(|| {
            Error::custom(format_args!(
                "a CPU id is a number from 0 to {}\n`lscpu -e` lists the CPUs of this machine",
                MAX_WORKERS - 1
            ))
        })
    }
}
