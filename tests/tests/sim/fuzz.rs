//! The corpus of hostile inputs, which `bash tests/run fuzz` extends.

use fleetgate_tests::fuzz::{TARGETS, api, replay};

#[test]
fn no_input_of_the_corpus_makes_a_parser_panic() {
    for target in &TARGETS {
        assert!(replay(target) >= 3, "{}: the corpus is empty", target.0);
    }
}

#[tokio::test]
async fn every_body_of_the_corpus_gets_an_answer_below_500() {
    let sent = api::replay().await.expect("answers");
    assert!(sent > 30, "only {sent} bodies");
}
