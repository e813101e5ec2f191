//! Which records of an answer count.

use hickory_resolver::net::{ForwardNSData, NoRecords};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::rdata::{CNAME, NS};

use super::*;

const A: RecordType = RecordType::A;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// `data` is an address, or the name that an alias leads to.
fn record(owner: &str, ttl: u32, data: &str) -> Record {
    let data = match data.parse::<IpAddr>() {
        Ok(ip) => RData::from(ip),
        Err(_) => RData::CNAME(CNAME(name(data))),
    };
    Record::from_rdata(name(owner), ttl, data)
}

fn answer(kind: RecordType, records: &[Record]) -> Resolution {
    let asked = name("node.test.");
    let query = Query::query(asked.clone(), kind);
    let lookup = Lookup::new_with_max_ttl(query, records.to_vec());
    classify(Ok(lookup), &asked, kind).expect("an answer")
}

fn addresses(ips: &[&str], ttl: u64) -> Resolution {
    let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    Resolution::Addresses(ips, Duration::from_secs(ttl))
}

#[test]
fn only_records_of_the_name_and_of_the_type_count() {
    let records = [
        record("other.test.", 1, "127.0.0.1"),
        record("Node.test.", 5, "127.0.0.2"),
        record("node.test.", 2, "::3"),
        record("node.test.", 7, "127.0.0.4"),
    ];
    assert_eq!(answer(A, &records), addresses(&["127.0.0.2", "127.0.0.4"], 5));
    assert_eq!(answer(RecordType::AAAA, &records), addresses(&["::3"], 2));
}

#[test]
fn aliases_are_followed_in_any_order() {
    let records = [
        record("c.test.", 9, "127.0.0.1"),
        record("b.test.", 4, "c.test."),
        record("node.test.", 6, "b.test."),
        record("x.test.", 1, "y.test."),
        record("y.test.", 1, "127.0.0.2"),
    ];
    assert_eq!(answer(A, &records), addresses(&["127.0.0.1"], 4));
    let round = [record("node.test.", 6, "b.test."), record("b.test.", 6, "node.test.")];
    assert_eq!(answer(A, &round), addresses(&[], 6));
}

#[test]
fn a_time_to_live_is_a_day_at_most_and_none_where_it_is_negative() {
    let ttl = |ttl| answer(A, &[record("node.test.", ttl, "127.0.0.1")]);
    assert_eq!(ttl(86_400), addresses(&["127.0.0.1"], 86_400));
    assert_eq!(ttl(i32::MAX as u32), addresses(&["127.0.0.1"], 86_400));
    assert_eq!(ttl(1 << 31), addresses(&["127.0.0.1"], 0));
    assert_eq!(ttl(u32::MAX), addresses(&["127.0.0.1"], 0));
}

#[test]
fn a_referral_says_nothing_of_the_name() {
    let asked = name("node.test.");
    let server = Record::from_rdata(name("test."), 5, RData::NS(NS(name("ns.test."))));
    let nothing = NoRecords::new(Query::query(asked.clone(), A), ResponseCode::NoError);
    let mut referral = nothing.clone();
    referral.ns = Some([ForwardNSData { ns: server, glue: [].into() }].into());
    let classify = |none| classify(Err(DnsError::NoRecordsFound(none).into()), &asked, A);
    assert!(matches!(classify(nothing), Ok(Resolution::NoAddress)));
    assert!(matches!(classify(referral), Err(ServerError::Referral)));
}
