//! The text of a plan.

use super::differences::Difference;
use super::plan::{Act, PlanStep};

/// Writes one line per step, with the differences below it.
pub fn render(steps: &[PlanStep]) -> String {
    let mut text = String::new();
    for step in steps {
        let mark = match step.act {
            Act::Make => '+',
            Act::Change | Act::Adopt | Act::Forget => '~',
            Act::Remove => '-',
            Act::Keep => '!',
        };
        let why = match step.act {
            Act::Adopt => ": taken over unchanged".to_owned(),
            _ if step.why.is_empty() => String::new(),
            _ => format!(": {}", step.why),
        };
        let name = format!("{} {}", step.kind.name(), step.name);
        text.push_str(&format!("{mark} {}{why}\n", name.trim_end()));
        step.differences.iter().for_each(|d| text.push_str(&line(d)));
    }
    text
}

fn line(d: &Difference) -> String {
    match (&d.now, &d.file) {
        (None, Some(file)) => format!("      {}: {file}\n", d.field),
        (Some(now), None) => format!("      {}: {now} -> none\n", d.field),
        (now, file) => {
            let (now, file) = (now.as_deref().unwrap_or_default(), file.as_deref().unwrap_or_default());
            format!("      {}: {now} -> {file}\n", d.field)
        }
    }
}

/// `1 to create, 2 to change, 1 kept`; `None`: nothing is to be done or told.
pub fn summary(steps: &[PlanStep]) -> Option<String> {
    let count = |acts: &[Act]| steps.iter().filter(|s| acts.contains(&s.act)).count();
    let parts = [
        (count(&[Act::Make]), "to create"),
        (count(&[Act::Change, Act::Adopt]), "to change"),
        (count(&[Act::Remove]), "to remove"),
        (count(&[Act::Forget]), "to forget"),
        (count(&[Act::Keep]), "kept"),
    ];
    let shown: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}
