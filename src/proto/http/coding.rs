//! Content codings of files that were compressed beforehand, and which of them a client takes
//! (RFC 9110 section 12.5.3).

use super::conditional::Lines;

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878).
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// All codings.
    pub const ALL: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];

    /// The name in `Content-Encoding`, and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Br => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What is appended to the name of a file that has a copy in this coding beside it.
    pub fn suffix(self) -> &'static str {
        match self {
            Coding::Br => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }

    /// The coding with this name in any case. `x-gzip` is `gzip` (RFC 9110 section 8.4.1.3).
    fn named(name: &[u8]) -> Option<Coding> {
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Coding::Gzip);
        }
        Coding::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
    }
}

/// Codings in the order in which a response prefers them, without identity, which comes last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Codings {
    list: [Option<Coding>; Coding::ALL.len()],
}

impl Codings {
    /// The codings in their order.
    pub fn iter(self) -> impl Iterator<Item = Coding> {
        self.list.into_iter().flatten()
    }

    /// Those of the `offered` codings that the client takes, the best first. Among equal ones the
    /// order is that of `offered`. A coding with a lower weight than identity is left
    /// out.
    ///
    /// Without the field there is none, although any coding would be allowed: a client without the
    /// field is most likely to know no coding. If the client refuses identity and takes none of the
    /// offered ones, identity is sent nevertheless (RFC 9110 section 12.5.3 allows it).
    pub fn accepted(field: &Lines<'_>, offered: &[Coding]) -> Codings {
        let mut codings = Codings::default();
        if field.is_empty() || offered.is_empty() {
            return codings;
        }
        let weights = Weights::parse(field);
        let mut ranked = [(0, None); Coding::ALL.len()];
        for (rank, &coding) in ranked.iter_mut().zip(offered) {
            let weight = weights.of(coding);
            let is_taken = weight > 0 && weight >= weights.identity.unwrap_or(0);
            *rank = if is_taken { (weight, Some(coding)) } else { (0, None) };
        }
        // The sort is stable.
        ranked.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        codings.list = ranked.map(|(_, coding)| coding);
        codings
    }
}

/// The weights of a field, in thousandths. `None` for what the field does not name.
#[derive(Default)]
struct Weights {
    codings: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    others: Option<u16>,
}

impl Weights {
    fn parse(field: &Lines<'_>) -> Weights {
        let mut weights = Weights::default();
        for item in field.iter().flat_map(|line| line.split(|&byte| byte == b',')) {
            let mut parts = item.splitn(2, |&byte| byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            // An item with a weight that is none is left out.
            let Some(weight) = parts.next().map_or(Some(1000), weight) else { continue };
            let known = if name == b"*" {
                &mut weights.others
            } else if name.eq_ignore_ascii_case(b"identity") {
                &mut weights.identity
            } else if let Some(coding) = Coding::named(name) {
                &mut weights.codings[coding as usize]
            } else {
                continue;
            };
            // The first one counts.
            known.get_or_insert(weight);
        }
        weights
    }

    fn of(&self, coding: Coding) -> u16 {
        self.codings[coding as usize].or(self.others).unwrap_or(0)
    }
}

/// Parses `q=` and a number from 0 to 1 with up to three decimals (RFC 9110 section 12.4.2), in
/// thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.trim_ascii();
    let value = value.strip_prefix(b"q=").or_else(|| value.strip_prefix(b"Q="))?;
    let (whole, decimals) = value.split_first()?;
    let decimals = match decimals {
        [] => decimals,
        [b'.', decimals @ ..] if decimals.len() <= 3 => decimals,
        _ => return None,
    };
    if !matches!(whole, b'0' | b'1') || !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = decimals.iter().chain(std::iter::repeat(&b'0')).take(3);
    let weight =
        digits.fold(u16::from(whole - b'0'), |sum, digit| sum * 10 + u16::from(digit - b'0'));
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coding::{Br, Gzip, Zstd};
    use proptest::prelude::*;

    fn accepted(field: &str) -> Vec<Coding> {
        accepted_of(&[field], &[Br, Zstd, Gzip])
    }

    fn accepted_of(lines: &[&str], offered: &[Coding]) -> Vec<Coding> {
        let mut field = Lines::default();
        lines.iter().for_each(|line| field.add(line.as_bytes()));
        Codings::accepted(&field, offered).iter().collect()
    }

    #[test]
    fn codings_are_taken_by_their_weights() {
        assert_eq!(accepted("gzip, deflate, br, zstd"), [Br, Zstd, Gzip], "as browsers send it");
        assert_eq!(accepted("gzip, deflate"), [Gzip]);
        assert_eq!(accepted("br;q=0.5, gzip"), [Gzip, Br]);
        assert_eq!(accepted("br;q=0.5,gzip;q=0.501,zstd;q=0.499"), [Gzip, Br, Zstd]);
        assert_eq!(accepted("GZIP ; Q=1.000"), [Gzip]);
        assert_eq!(accepted("x-gzip"), [Gzip]);
        assert_eq!(accepted("br;q=0, *"), [Zstd, Gzip]);
        assert_eq!(accepted("*;q=0, gzip"), [Gzip]);
        assert_eq!(accepted("gzip;q=0"), []);
        assert_eq!(accepted("gzip;q=0.000"), []);
        assert_eq!(accepted("gzip;q=0.001"), [Gzip]);
        assert_eq!(
            (accepted(""), accepted("*;q=0"), accepted("deflate")),
            (vec![], vec![], vec![])
        );
        assert_eq!(accepted_of(&[], &[Gzip]), [], "without the field");
        assert_eq!(accepted_of(&["gzip", "br"], &[Gzip, Br]), [Gzip, Br], "as offered, two lines");
    }

    #[test]
    fn identity_counts_if_it_is_named() {
        assert_eq!(accepted("gzip;q=0.5, identity"), []);
        assert_eq!(accepted("gzip, identity;q=0.5, br;q=0.4"), [Gzip]);
        assert_eq!(accepted("gzip;q=0.5, identity;q=0.5"), [Gzip]);
        assert_eq!(accepted("gzip;q=0.5, identity;q=0"), [Gzip]);
        assert_eq!(accepted("identity;q=0"), [], "then the server may send it");
        assert_eq!(accepted("gzip;q=0.5, *;q=0"), [Gzip]);
    }

    #[test]
    fn an_item_with_a_weight_that_is_none_is_left_out() {
        for field in [
            "gzip;q=2",
            "gzip;q=1.001",
            "gzip;q=",
            "gzip;q=.5",
            "gzip;q=0.1234",
            "gzip;q=-1",
            "gzip;x=1",
            "gzip;",
            "gzip;q=0,5",
            "gzip;q=1.0;x",
        ] {
            assert_eq!(accepted(field), [], "{field}");
        }
        assert_eq!(accepted("gzip;q=x, br"), [Br]);
        assert_eq!(accepted("gzip;q=1., gzip;q=0"), [Gzip], "the first one counts");
    }

    proptest! {
        #[test]
        fn what_is_taken_was_offered_and_has_a_weight(
            field in "((br|gzip|zstd|identity|\\*|x)(;q=(0|1|0\\.5|0\\.9|x))?,? ?){0,6}",
        ) {
            let taken = accepted_of(&[&field], &[Gzip, Br]);
            prop_assert!(taken.len() <= 2 && !taken.contains(&Zstd));
            for coding in taken {
                let is_named = field.contains(coding.name()) || field.contains('*');
                prop_assert!(is_named, "{:?} in {}", coding, field);
            }
        }

        #[test]
        fn any_bytes_are_judged(field in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut lines = Lines::default();
            lines.add(&field);
            Codings::accepted(&lines, &Coding::ALL);
        }
    }
}
