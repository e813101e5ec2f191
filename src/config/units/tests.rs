//! Every unit, and texts that are refused.

use proptest::prelude::*;

use super::*;

#[test]
fn every_unit_is_understood() {
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
    assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
    assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
    assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
    assert_eq!(duration("365d"), Ok(LONGEST));
    assert_eq!(size("512B"), Ok(512));
    assert_eq!(size("64KiB"), Ok(65_536));
    assert_eq!(size("1MiB"), Ok(1_048_576));
    assert_eq!(size("2GiB"), Ok(2_147_483_648));
}

#[test]
fn nothing_is_guessed() {
    for text in ["", "s", "1.5s", "-1s", "+1s", " 1s", "1 s", "1h30m", "1S", "1sec", "1_0s"] {
        assert_eq!(duration(text), Err(UnitError::Malformed), "{text:?}");
    }
    for text in ["", "KiB", "1KB", "1k", "1M", "1 KiB", "1.5MiB"] {
        assert_eq!(size(text), Err(UnitError::Malformed), "{text:?}");
    }
    assert_eq!(duration("5"), Err(UnitError::MissingUnit));
    assert_eq!(size("5"), Err(UnitError::MissingUnit));
    assert_eq!(duration("0s"), Err(UnitError::Zero));
    assert_eq!(duration("0"), Err(UnitError::Zero));
    assert_eq!(size("0"), Err(UnitError::Zero));
    assert_eq!(size("0B"), Err(UnitError::Zero));
    assert_eq!(duration("366d"), Err(UnitError::TooLarge));
    assert_eq!(duration("99999999999999999999s"), Err(UnitError::TooLarge));
    assert_eq!(size("18446744073709551615KiB"), Err(UnitError::TooLarge));
}

#[test]
fn sizes_are_shown_in_their_largest_unit() {
    assert_eq!(in_bytes(65_536), "64KiB");
    assert_eq!(in_bytes(1_048_576), "1MiB");
    assert_eq!(in_bytes(1000), "1000B");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
        if let Ok(read) = duration(&text) {
            prop_assert!(read > Duration::ZERO && read <= LONGEST);
        }
        if let Ok(read) = size(&text) {
            prop_assert!(read > 0);
        }
    }

    #[test]
    fn milliseconds_come_back_as_written(ms in 1_u64..=31_536_000_000) {
        prop_assert_eq!(duration(&format!("{ms}ms")), Ok(Duration::from_millis(ms)));
    }

    #[test]
    fn a_size_comes_back_as_shown(bytes in 1_u64..) {
        prop_assert_eq!(size(&in_bytes(bytes)), Ok(bytes));
    }

    #[test]
    fn larger_units_are_multiples(number in 1_u64..=365) {
        let read = |unit| duration(&format!("{number}{unit}"));
        prop_assert_eq!(read("d"), duration(&format!("{}h", number * 24)));
        prop_assert_eq!(read("h"), duration(&format!("{}m", number * 60)));
        prop_assert_eq!(read("m"), duration(&format!("{}s", number * 60)));
        prop_assert_eq!(read("s"), duration(&format!("{}ms", number * 1000)));
    }
}
