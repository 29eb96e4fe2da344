//! Amounts of data, as people write them. Pure.

/// The units and their bytes, as the tables print them, and the binary ones.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Parses `10GB`. Without a unit it is bytes.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let scale = match unit {
        "" => Some(1),
        unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, bytes)| *bytes),
    };
    let number = digits.trim_end().parse::<u64>().ok();
    let bytes = number.zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
    bytes.ok_or_else(|| {
        let units = UNITS.map(|(name, _)| name).join(", ");
        format!("{text:?}: a whole number with a unit is expected, such as 10GB; units are {units}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_whole_number_with_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("1500", 1_500),
            ("10GB", 10_000_000_000),
            ("10 gb", 10_000_000_000),
            ("2MiB", 2 << 20),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GB", "1.5GB", "-1", "10 Gbit", "18446744073709551615kB", "10\u{fc}"] {
            assert!(parse(bad).unwrap_err().contains("such as 10GB"), "{bad}");
        }
    }
}
