//! Backups under load, a smaller run of `bench -- backup`.

use fleetgate_tests::bench::backup::{Proof, prove};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_backup_began_is_in_it() {
    prove(Proof { backups: 3, hosts: 4, services: 5, history: 2_000_000 }).await.unwrap();
}
