use fleetgate_probes::range::{Range, Thresholds};

use super::super::query::{Columns, Direction, direction, group};
use super::*;

/// A host with one value at each step.
fn host(values: &[Option<[f64; 3]>]) -> Columns {
    let of = |field: usize| values.iter().map(|v| v.map(|v| v[field])).collect();
    let count = values.iter().map(|v| u32::from(v.is_some()) * 5).collect();
    Columns { min: of(0), avg: of(1), max: of(2), count }
}

fn limit(text: &str) -> Option<Range> {
    Some(text.parse().expect("a range"))
}

#[test]
fn the_threshold_says_which_direction_is_bad() {
    use Direction::*;
    let table = [
        ("90", High),
        ("~:90", High),
        ("10:", Low),
        ("10:20", Outside(15.0)),
        ("-10:10", Outside(0.0)),
        ("@10:20", Inside(15.0)),
        ("@~:5", Low),
        ("@5:", High),
        ("~:", High),
    ];
    for (text, expected) in table {
        assert_eq!(direction(Thresholds { warn: None, crit: limit(text) }), expected, "{text}");
        assert_eq!(direction(Thresholds { warn: limit(text), crit: None }), expected, "{text}");
    }
    assert_eq!(direction(Thresholds { warn: limit("90"), crit: limit("10:") }), Low);
    assert_eq!(direction(Thresholds::default()), High);
}

#[test]
fn a_group_has_the_mean_of_its_hosts_and_the_worst_of_them() {
    let hosts =
        [host(&[Some([1.0, 2.0, 9.0]), None]), host(&[Some([3.0, 4.0, 5.0]), None]), host(&[None, None])];
    let found = group(&hosts, Direction::High);
    let expected = Columns {
        min: vec![Some(2.0), None],
        avg: vec![Some(3.0), None],
        max: vec![Some(7.0), None],
        count: vec![2, 0],
    };
    assert_eq!((found.columns, found.worst, found.hosts), (expected, vec![Some(9.0), None], 3));
}

#[test]
fn the_worst_value_is_that_in_the_bad_direction() {
    let hosts = [host(&[Some([1.0, 5.0, 9.0])]), host(&[Some([3.0, 4.0, 14.0])])];
    let table = [
        (Direction::High, 14.0),
        (Direction::Low, 1.0),
        (Direction::Outside(7.0), 14.0),
        (Direction::Outside(10.0), 1.0),
        (Direction::Inside(5.2), 5.0),
        (Direction::Inside(13.0), 14.0),
    ];
    for (direction, expected) in table {
        assert_eq!(group(&hosts, direction).worst, [Some(expected)], "{direction:?}");
    }
}

#[test]
fn a_group_without_hosts_has_no_columns() {
    let found = group(&[], Direction::High);
    assert_eq!((found.hosts, found.columns, found.worst), (0, Columns::default(), Vec::new()));
}

proptest! {
    #[test]
    fn each_host_counts_the_same_whatever_the_order(
        values in proptest::collection::vec(proptest::option::of(-999i64..999), 1..20),
    ) {
        let hosts: Vec<Columns> = values.iter().map(|v| host(&[v.map(|v| [v as f64; 3])])).collect();
        let (found, mut reversed) = (group(&hosts, Direction::Low), hosts.clone());
        reversed.reverse();
        prop_assert_eq!(&group(&reversed, Direction::Low), &found);
        let known: Vec<i64> = values.iter().flatten().copied().collect();
        prop_assert_eq!(found.columns.count[0] as usize, known.len());
        prop_assert_eq!(found.worst[0], known.iter().min().map(|v| *v as f64));
        let mean = (!known.is_empty()).then(|| known.iter().sum::<i64>() as f64 / known.len() as f64);
        prop_assert_eq!(found.columns.avg[0], mean);
    }
}
