//! `fleetgate restore-review`: what a restore brought back, and its confirmation by an admin.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::customer::printed;
use super::device::said;
use super::table::{self, Column};
use crate::api::restore_review::{RestoreReview, ReviewList, ReviewObject};
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum RestoreReviewCommand {
    /// Show what came back, such as users, renters, tokens and grants
    Show,
    /// Confirm what came back: operators and renters reach hosts again
    Confirm {
        /// Time of the restore, as `show` prints it
        time: String,
    },
}

pub(crate) const COLUMNS: [Column; 4] =
    [Column::whole("KIND"), Column::name("NAME"), Column::text("DETAILS"), Column::whole("CHANGED")];

pub(crate) async fn run(client: &Client, command: RestoreReviewCommand) -> anyhow::Result<()> {
    match command {
        RestoreReviewCommand::Show => show(client).await,
        RestoreReviewCommand::Confirm { time } => {
            let body = json!({ "restored_at": time });
            let confirmed: Value = client.post("/restore-review/confirm", &body).await?;
            printed(client, &confirmed)?;
            said(
                client,
                "Confirmed: operators and renters reach what their grants permit, and booking goes on",
            )
        }
    }
}

async fn show(client: &Client) -> anyhow::Result<()> {
    let review: RestoreReview = client.get("/restore-review", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&review)?);
        return Ok(());
    }
    out::line!("{}", headline(&review));
    if review.awaits_confirmation {
        table::print(&COLUMNS, review.kinds.iter().flat_map(rows).collect());
        review.kinds.iter().filter_map(more).for_each(|line| out::line!("{line}"));
        let time = review.restored_at.as_deref().unwrap_or_default();
        out::line!(
            "Remove what has no right any more, then: fleetgate restore-review confirm {}",
            table::safe(time)
        );
    }
    Ok(())
}

fn headline(review: &RestoreReview) -> String {
    let Some(restored_at) = &review.restored_at else {
        return "This gateway was not restored from a backup".to_owned();
    };
    let made = review.backup_made_at.as_deref().map(|at| format!(" of {}", table::clock_time(at)));
    let restored =
        format!("The backup{} was restored at {}", made.unwrap_or_default(), table::clock_time(restored_at));
    match (&review.confirmed_by, &review.confirmed_at) {
        (Some(by), Some(at)) => {
            format!("{restored}; {} confirmed it at {}", table::safe(by), table::clock_time(at))
        }
        _ => format!(
            "{restored}. Until an admin confirms, operators and renters reach nothing, nothing is booked, no device \
             enrols, and no event of a rental is delivered. This is in effect again afterwards:"
        ),
    }
}

fn rows(list: &ReviewList) -> Vec<Vec<String>> {
    let row = |of: &ReviewObject| {
        vec![
            list.kind.clone(),
            table::safe(of.name.as_deref().unwrap_or(&of.id)),
            table::safe(&of.details),
            table::minute(&of.changed_at),
        ]
    };
    list.objects.iter().map(row).collect()
}

/// Says how many of a kind are not listed.
fn more(list: &ReviewList) -> Option<String> {
    let listed = i64::try_from(list.objects.len()).unwrap_or(i64::MAX);
    (list.total > listed).then(|| format!("and {} more of the kind {}", list.total - listed, list.kind))
}

#[cfg(test)]
mod tests {
    use super::super::tests::connected_as;
    use super::*;
    use crate::store::access::Role;
    use crate::store::fixture;
    use fleetgate_engine::time::Wall;

    #[test]
    fn the_headline_says_what_waits_and_who_confirmed() {
        let never = RestoreReview::default();
        assert_eq!(headline(&never), "This gateway was not restored from a backup");
        let waits = RestoreReview {
            awaits_confirmation: true,
            restored_at: Some("2026-11-30T08:15:00.5Z".into()),
            backup_made_at: Some("2026-11-29T02:30:00Z".into()),
            ..never
        };
        let text = headline(&waits);
        let begin = "The backup of 2026-11-29 02:30:00Z was restored at 2026-11-30 08:15:00Z. Until an admin";
        assert!(text.starts_with(begin), "{text}");
        let (by, at) = (Some("user:ada".into()), Some("2026-11-30T09:00:00Z".into()));
        let confirmed =
            RestoreReview { awaits_confirmation: false, confirmed_by: by, confirmed_at: at, ..waits };
        assert!(headline(&confirmed).ends_with("; user:ada confirmed it at 2026-11-30 09:00:00Z"));
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let list = ReviewList { kind: "grant".into(), total: 7, objects: Vec::new() };
        assert_eq!(more(&list).unwrap(), "and 7 more of the kind grant");
        assert_eq!(more(&ReviewList { total: 0, ..list }), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_time_that_is_shown_confirms() {
        let (client, api) = connected_as(Role::Admin).await;
        fixture::restored(&api.state.store, Wall::from_millis(1_700_000_000_250)).await;
        let review: RestoreReview = client.get("/restore-review", &[]).await.unwrap();
        assert_eq!(review.kinds.len(), 8);
        assert!(rows(&review.kinds[3]).iter().any(|row| row[1] == "admin"), "{review:?}");
        let time = review.restored_at.unwrap();
        let wrong = RestoreReviewCommand::Confirm { time: "2026-01-01T00:00:00Z".into() };
        assert!(run(&client, wrong).await.unwrap_err().to_string().contains("fleetgate restore-review show"));
        run(&client, RestoreReviewCommand::Confirm { time }).await.unwrap();
        let review: RestoreReview = client.get("/restore-review", &[]).await.unwrap();
        assert!(!review.awaits_confirmation);
    }
}
