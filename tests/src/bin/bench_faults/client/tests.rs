use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ExchangeOutcome, FaultLoad, ask, send};
use crate::arrivals::ArrivalCounts;
use crate::target::{FaultyTarget, TargetBehaviour};

fn page(number: u32) -> String {
    format!("/{number}")
}

async fn target() -> (FaultyTarget, Arc<ArrivalCounts>) {
    let arrivals = Arc::new(ArrivalCounts::default());
    let target = FaultyTarget::start(Arc::clone(&arrivals)).await;
    (target.expect("a free port"), arrivals)
}

/// A target that hangs holds nobody back: all requests are sent meanwhile, each at its time.
#[tokio::test]
async fn requests_are_sent_however_long_others_take() {
    let (mut target, arrivals) = target().await;
    target.behave(TargetBehaviour::Hangs).await.expect("hangs");
    let address = target.address;
    let load = FaultLoad {
        method: "GET",
        per_second: 100,
        span: Duration::from_millis(300),
        path: page,
    };
    let sending = tokio::spawn(send(address, load, Instant::now()));
    e2e::wait::wait_until("all were sent, none answered", e2e::wait::SOON, || {
        arrivals.attempts() == 30
    })
    .await;
    target
        .behave(TargetBehaviour::Answers)
        .await
        .expect("answers");
    let exchanges = sending.await.expect("no panic");
    assert_eq!(exchanges.len(), 30);
    assert!(
        exchanges
            .iter()
            .all(|one| matches!(one.outcome, ExchangeOutcome::Broken(_)))
    );
    let first = exchanges.iter().min_by_key(|one| one.due).expect("30");
    assert!(first.took >= Duration::from_millis(290), "{first:?}");
    let last = exchanges.iter().max_by_key(|one| one.due).expect("30");
    assert_eq!(last.due, Duration::from_millis(290));
}

/// What the client makes of one answer, and whether the request reached the target.
async fn outcome(behaviour: TargetBehaviour, method: &str) -> (ExchangeOutcome, u64) {
    let (mut target, arrivals) = target().await;
    target.behave(behaviour).await.expect("behaves");
    let outcome = ask(target.address, method, "/x").await;
    (outcome, arrivals.attempts())
}

#[tokio::test]
async fn each_behaviour_is_what_it_says() {
    for method in ["GET", "POST"] {
        assert_eq!(
            outcome(TargetBehaviour::Answers, method).await,
            (ExchangeOutcome::Right, 1)
        );
        let (failed, arrived) = outcome(TargetBehaviour::Fails(500), method).await;
        assert!(
            matches!(&failed, ExchangeOutcome::Wrong(what) if what.starts_with("500")),
            "{failed:?}"
        );
        assert_eq!(arrived, 1);
        let (reset, arrived) = outcome(TargetBehaviour::Resets, method).await;
        assert!(
            matches!(&reset, ExchangeOutcome::Broken(what) if what.contains("reset")),
            "{reset:?}"
        );
        assert_eq!(arrived, 1, "it was read before the reset");
        let (refused, arrived) = outcome(TargetBehaviour::Refuses, method).await;
        assert!(
            matches!(&refused, ExchangeOutcome::Broken(what) if what.contains("refused")),
            "{refused:?}"
        );
        assert_eq!(arrived, 0);
    }
}

#[tokio::test]
async fn a_target_serves_again_at_the_same_address() {
    let (mut target, _) = target().await;
    for behaviour in [
        TargetBehaviour::Refuses,
        TargetBehaviour::BlackHole,
        TargetBehaviour::Hangs,
    ] {
        target.behave(behaviour).await.expect("behaves");
        target
            .behave(TargetBehaviour::Answers)
            .await
            .expect("answers");
        assert_eq!(
            ask(target.address, "GET", "/x").await,
            ExchangeOutcome::Right,
            "{behaviour:?}"
        );
    }
}

/// No connection is opened to a black hole, unlike to a target that hangs. A few may come
/// before its queue is full; it holds 128.
#[tokio::test]
async fn a_black_hole_takes_no_connection() {
    const FEW: usize = 64;
    let (mut target, arrivals) = target().await;
    target
        .behave(TargetBehaviour::BlackHole)
        .await
        .expect("behaves");
    let mut opened = Vec::new();
    let connect = || tokio::net::TcpStream::connect(target.address);
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(500), connect()).await {
        opened.push(connected.expect("it is not refused"));
        assert!(opened.len() < FEW, "connections are opened");
    }
    assert_eq!(arrivals.attempts(), 0);
}
