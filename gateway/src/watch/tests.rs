use super::*;
use crate::store::fixture::{self, TIMING};

#[tokio::test]
async fn a_host_that_changed_or_went_keeps_no_connection() {
    let (store, _dir) = fixture::store().await;
    let host = fixture::device(&store, 7, "cam-07").await;
    let spec = store.host_spec(host, &TIMING).await.unwrap().unwrap();
    assert_eq!(outdated(&MonitorInput::Upsert(Box::new(spec))), Some(host));
    assert_eq!(outdated(&MonitorInput::Remove(host)), Some(host));
    assert_eq!(outdated(&MonitorInput::CheckNow { host, service: None }), None);
}
