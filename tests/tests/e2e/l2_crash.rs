//! A gateway with its second tier on a disk is killed in the middle of writes, again and
//! again (`make soak-l2` does it a hundred times).

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_starts_again_keeps_what_was_synced_and_serves_no_wrong_byte() {
    let tally = e2e::crash::run(12, 1).await;
    assert!(
        tally.kept > 0 && tally.purged > 0 && tally.unsynced > 0,
        "{tally:?}"
    );
}
