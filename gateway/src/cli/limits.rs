//! Limits on the command line: `--warn rta=100 --crit rta=200`.
//!
//! This module only merges text. The gateway validates the ranges.

use clap::Args;
use serde_json::{Value, json};

use super::host_args::pair;

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Limits {
    /// WARNING outside of this range, such as rta=100 or free=10: (an empty range removes the limit)
    #[arg(long, value_name = "METRIC=RANGE", value_parser = pair)]
    pub warn: Vec<(String, String)>,
    /// CRITICAL outside of this range, in the same form
    #[arg(long, value_name = "METRIC=RANGE", value_parser = pair)]
    pub crit: Vec<(String, String)>,
}

impl Limits {
    pub fn is_empty(&self) -> bool {
        self.warn.is_empty() && self.crit.is_empty()
    }

    /// Merges these limits into a service's own list. A metric without limits of its own starts
    /// from the effective ones, so that `--warn` alone keeps the critical limit.
    pub fn merge(&self, own: &mut Vec<Value>, effective: &[Value]) {
        let all = self.warn.iter().map(|given| ("warn", given)).chain(self.crit.iter().map(|g| ("crit", g)));
        for (field, (metric, range)) in all {
            let limit = slot(own, effective, metric);
            match range.is_empty() {
                true => drop(limit.as_object_mut().and_then(|fields| fields.remove(field))),
                false => limit[field] = json!(range),
            }
        }
    }
}

fn slot<'a>(own: &'a mut Vec<Value>, effective: &[Value], metric: &str) -> &'a mut Value {
    let of = |list: &[Value]| list.iter().position(|limit| limit["metric"] == metric);
    let at = of(own).unwrap_or_else(|| {
        let base = of(effective).map(|at| effective[at].clone());
        own.push(base.unwrap_or_else(|| json!({ "metric": metric })));
        own.len() - 1
    });
    &mut own[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_limit_leaves_the_other_as_it_holds() {
        let given = |text: &str| vec![pair(text).unwrap()];
        let effective = [json!({ "metric": "rta", "warn": "50", "crit": "200" })];
        let mut own = vec![json!({ "metric": "pl", "crit": "60" })];
        Limits { warn: given("rta=100"), crit: given("pl=") }.merge(&mut own, &effective);
        let expected = [json!({ "metric": "pl" }), json!({ "metric": "rta", "warn": "100", "crit": "200" })];
        assert_eq!(own, expected);
    }
}
