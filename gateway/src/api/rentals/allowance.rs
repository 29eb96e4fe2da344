//! Reads what calls say of the allowance of a rental.

use crate::api::request::parse::Fields;
use crate::store::rentals::allowances::Allowance;

/// The largest allowance: a petabyte. The document says it too.
const MOST: i64 = 1_000_000_000_000_000;

/// Reads a number of bytes.
pub fn bytes(given: i64) -> Result<u64, String> {
    let bytes = u64::try_from(given).ok().filter(|_| (1..=MOST).contains(&given));
    bytes.ok_or_else(|| format!("1 to {MOST} bytes are expected; without it there is no limit"))
}

/// Reads the allowance of an item.
pub fn of_item(
    wrong: &mut Fields,
    prefix: &str,
    (given, cuts): (Option<i64>, bool),
) -> Option<Option<Allowance>> {
    let bytes = wrong.take(&format!("{prefix}allowance_bytes"), given.map(bytes).transpose())?;
    wrong.take(&format!("{prefix}cut_at_allowance"), allowance(bytes, Some(cuts)))
}

/// Returns the allowance after a change. A field that is `None` stays as it is.
pub fn changed(
    wrong: &mut Fields,
    before: Option<Allowance>,
    (given, cuts): (Option<Option<i64>>, Option<bool>),
) -> Option<Option<Allowance>> {
    let present = before.map(|before| before.bytes);
    let given = given.map(|given| given.map(bytes).transpose()).transpose();
    let bytes = wrong.take("allowance_bytes", given)?.unwrap_or(present);
    let kept = before.filter(|_| bytes.is_some()).map(|before| before.cuts);
    wrong.take("cut_at_allowance", allowance(bytes, cuts.or(kept)))
}

fn allowance(bytes: Option<u64>, cuts: Option<bool>) -> Result<Option<Allowance>, &'static str> {
    match (bytes, cuts) {
        (Some(bytes), cuts) => Ok(Some(Allowance { bytes, cuts: cuts.unwrap_or(false) })),
        (None, Some(true)) => Err("there is no allowance to cut at: give allowance_bytes as well"),
        (None, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let of = |bytes, cuts| Some(Allowance { bytes, cuts });
        let mut wrong = Fields::default();
        let mut after = |before, bytes, cuts| changed(&mut wrong, before, (bytes, cuts)).unwrap();
        assert_eq!(after(of(5, true), None, None), of(5, true));
        assert_eq!(after(of(5, true), Some(Some(9)), None), of(9, true));
        assert_eq!(after(of(5, true), None, Some(false)), of(5, false));
        assert_eq!(after(of(5, true), Some(None), None), None);
        assert_eq!(after(None, None, Some(false)), None);
        assert_eq!(after(None, Some(Some(7)), None), of(7, false));
        wrong.finish().unwrap();
    }

    #[test]
    fn nothing_is_cut_without_an_allowance_and_no_allowance_is_empty() {
        for (bytes, cuts) in [(None, Some(true)), (Some(None), Some(true))] {
            let mut wrong = Fields::default();
            assert_eq!(changed(&mut wrong, None, (bytes, cuts)), None);
            assert!(wrong.finish().is_err());
        }
        for bad in [0, -1, MOST + 1, i64::MIN] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!((bytes(1), bytes(MOST)), (Ok(1), Ok(MOST.unsigned_abs())));
    }
}
