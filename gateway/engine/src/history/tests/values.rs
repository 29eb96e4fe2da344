use super::super::decimal::{self, FLOAT, Scaled, one, significant, snapped, value};
use super::*;

#[test]
fn a_value_becomes_its_shortest_decimal_number() {
    let third = 1.0 / 3.0;
    let table = [
        (0.0, (0, 0)),
        (-0.0, (0, 0)),
        (12.345, (3, 12_345)),
        (0.1 + 0.2, (1, 3)),
        (-0.000_000_001, (9, -1)),
        (1e15, (0, 1_000_000_000_000_000)),
        (100.0 * third, (5, 3_333_333)),
        (third, (7, 3_333_333)),
        (123_456_789.123_456_78, (0, 123_456_800)),
        (1_234.567_89, (5, 123_456_789)),
        (12_345_678.95, (2, 1_234_567_895)),
        (1_234.567_890_123, (3, 1_234_568)),
        (5e-324, (FLOAT, 1)),
        (1e300, (FLOAT, 1e300f64.to_bits() as i64)),
    ];
    for (of, expected) in table {
        assert_eq!(one(of, SeriesKind::Gauge), expected, "{of}");
    }
}

/// Noise would give its decimals to a whole column.
#[test]
fn noise_is_hardly_ever_a_number_of_many_decimals() {
    let of = |i: i32| 33.0 + f64::from(i) / 99_991.0;
    assert!((0..99_991).filter(|i| one(of(*i), SeriesKind::Gauge).0 > 5).count() <= 2);
}

#[test]
fn a_counter_is_never_rounded() {
    let third = 1.0 / 3.0;
    assert_eq!(one(third, SeriesKind::Counter), (FLOAT, third.to_bits() as i64));
    let large = ((1u64 << 53) - 1) as f64;
    assert_eq!(one(large, SeriesKind::Counter), (0, (1 << 53) - 1));
    assert_eq!(one(18e18, SeriesKind::Counter), (FLOAT, 18e18f64.to_bits() as i64));
}

#[test]
fn a_column_has_one_exponent_or_the_bits() {
    let decimal = |exponent, mantissas: &[i64]| Scaled::Decimal { exponent, mantissas: mantissas.to_vec() };
    assert_eq!(decimal::scaled(&[], SeriesKind::Gauge), decimal(0, &[]));
    assert_eq!(decimal::scaled(&[1.0, 2.5, 0.125], SeriesKind::Gauge), decimal(3, &[1_000, 2_500, 125]));
    let far_apart = [1e14f64, 0.000_000_001];
    let bits = far_apart.map(|v| v.to_bits() as i64).to_vec();
    assert_eq!(decimal::scaled(&far_apart, SeriesKind::Gauge), Scaled::Float(bits));
}

#[test]
fn significant_digits_are_those_of_the_printed_number() {
    let table = [
        (1_234_567.8, 6, 1_234_570.0),
        (-0.000_123_456_7, 3, -0.000_123),
        (999_999.96, 7, 1_000_000.0),
        (9.995, 1, 10.0),
        (1.25e-30, 2, 1.2e-30),
        (f64::MAX, 2, f64::MAX),
        (0.0, 3, 0.0),
        (7.0, 0, 7.0),
    ];
    for (of, digits, expected) in table {
        assert_eq!(significant(of, digits), expected, "{of}");
    }
    assert!(significant(f64::NAN, 3).is_nan());
}

#[test]
fn snapping_takes_the_dust_off_a_sum() {
    assert_eq!(snapped(0.1 + 0.2, 1), 0.3);
    assert_eq!(snapped(1e300, 3), 1e300);
}

proptest! {
    #[test]
    fn what_is_kept_is_kept_again(of in any_value(), kind in any_kind()) {
        prop_assume!(of.is_finite());
        let (exponent, mantissa) = one(of, kind);
        let first = value(mantissa, exponent);
        prop_assert_eq!(one(first, kind), (exponent, mantissa), "{} {}", of, first);
        if kind == SeriesKind::Counter {
            prop_assert!(of == first || of.to_bits().abs_diff(first.to_bits()) <= 4);
        }
        prop_assert!((of - first).abs() <= of.abs() * 5e-7, "{} {}", of, first);
    }

    #[test]
    fn whole_numbers_are_exact(of in -(1i64 << 53) + 1..1 << 53, kind in any_kind()) {
        prop_assert_eq!(one(of as f64, kind), (0, of));
    }

    #[test]
    fn a_column_keeps_of_each_value_what_it_would_keep_alone(
        list in proptest::collection::vec(any_value(), 0..50), kind in any_kind(),
    ) {
        let read: Vec<u64> = match decimal::scaled(&list, kind) {
            Scaled::Decimal { exponent, mantissas } =>
                mantissas.into_iter().map(|m| value(m, exponent).to_bits()).collect(),
            Scaled::Float(bits) => bits.into_iter().map(|bits| bits as u64).collect(),
        };
        let alone: Vec<u64> = list.iter().map(|v| decimal::kept(*v, kind).to_bits()).collect();
        prop_assert_eq!(read, alone);
    }

    #[test]
    fn significant_agrees_with_the_formatter(of in any_value(), digits in 1u32..12) {
        prop_assume!(of.is_finite() && of != 0.0);
        let rounded = significant(of, digits);
        let printed: f64 = format!("{of:.*e}", digits as usize - 1).parse().expect("a number");
        // A half may be rounded to either side.
        let step = 10f64.powi(of.abs().log10().floor() as i32 + 1 - digits as i32);
        let is_half = ((rounded - printed).abs() - step).abs() < step * 1e-3;
        prop_assert!(rounded == printed || !printed.is_finite() || is_half
            || (rounded - printed).abs() <= printed.abs() * 1e-15, "{} {} {}", of, rounded, printed);
    }

    #[test]
    fn sums_of_decimal_numbers_have_no_dust(
        list in proptest::collection::vec(-1_000_000i64..1_000_000, 0..300), exponent in 0u8..=9,
    ) {
        let values = list.iter().map(|m| value(*m, exponent));
        prop_assert_eq!(decimal::sum(values), value(list.iter().sum(), exponent));
    }
}
