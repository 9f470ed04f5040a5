//! Round trips over the bus: latency, order, duplicates, the largest event, and a connection that
//! is cut.
//!
//! Everything has a time limit, and a failure ends the examination, since everything after it would
//! fail for the same reason.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::advice::{self, ConfigKeyPlaces};
use super::ends::{BusProbe, NAMES};
use super::{FindingLine, ReportSection};
use lamina_base::description::InvalidSetting;
use lamina_cluster::bus::config::{BusConfig, Priming};
use lamina_cluster::bus::description::TransportDescription;
use lamina_cluster::bus::event::{BusEvent, EventFormatError, MAX_BYTES};
use lamina_cluster::bus::seal::SealKeys;
use lamina_cluster::bus::trial::BrokerFinding;
use lamina_edge::app::GatewayStartError;
use lamina_edge::app::seal_keys;
use lamina_edge::config::GatewayConfig;

/// The number of single round trips.
const ROUNDS: usize = 50;
/// The number of events sent at once, to check their order.
const BURST: usize = 100;
/// The number of events that a durable transport must keep while the listener is away.
const KEPT: usize = 5;
/// The time to connect, and to reconnect after the connections were cut.
const CONNECT: Duration = Duration::from_secs(10);
/// The time to remove what the examination created.
const CLEAR: Duration = Duration::from_secs(10);

pub(super) async fn examine(
    config: &GatewayConfig,
    places: &ConfigKeyPlaces<'_>,
) -> Result<ReportSection, GatewayStartError> {
    let (name, bus) = ("event bus", config.bus.as_ref());
    let transport = bus.and_then(BusConfig::transport);
    let (Some(bus), Some(transport)) = (bus, transport) else {
        return Ok(ReportSection {
            name,
            what: "none".to_owned(),
            lines: Vec::new(),
        });
    };
    // Finds out whether a gateway could open it.
    transport.open().map_err(GatewayStartError::Bus)?;
    let what = format!("{} {}", transport.kind(), advice::address(transport));
    let mut lines = Vec::new();
    let looked = look(transport, bus, seal_keys(config), places, &mut lines).await;
    if let Err((name, why)) = looked.map_err(GatewayStartError::Bus)? {
        let advised = advice::of_bus(transport, &why, places);
        lines.push(FindingLine::failed(name, advised));
    }
    Ok(ReportSection { name, what, lines })
}

/// The name of a check, and why it failed.
type FailedBusCheck = (&'static str, String);

async fn look(
    transport: &dyn TransportDescription,
    bus: &BusConfig,
    seal: Option<SealKeys>,
    places: &ConfigKeyPlaces<'_>,
    lines: &mut Vec<FindingLine>,
) -> Result<Result<(), FailedBusCheck>, InvalidSetting> {
    let began = Instant::now();
    let mark = format!("{:08x}", RandomState::new().hash_one(0) as u32);
    let late = || Err(format!("no answer within {CONNECT:?}"));
    let prepared = timeout(CONNECT, transport.prepare_trial(&mark)).await;
    let (trial, seen) = match prepared.unwrap_or_else(|_| late()) {
        Ok(prepared) => prepared,
        Err(why) => return Ok(Err(("connect", why))),
    };
    lines.extend(seen.into_iter().map(|seen| line_of(seen, places)));
    let mut ends = BusProbe::open(&*trial, seal)?;
    let tried = trips(&mut ends, transport, bus, began, lines).await;
    drop(ends);
    let late = || Err(format!("no answer within {CLEAR:?}"));
    let cleared = timeout(CLEAR, trial.clear(&NAMES)).await;
    // If both failed, the first failure is reported.
    Ok(tried.and(
        cleared
            .unwrap_or_else(|_| late())
            .map_err(|why| ("clear up", why)),
    ))
}

fn line_of(seen: BrokerFinding, places: &ConfigKeyPlaces<'_>) -> FindingLine {
    match seen.fault {
        None => FindingLine::fine(seen.what, seen.says),
        Some(key) => {
            let place = places.at(&format!("bus.{key}"));
            FindingLine::failed(seen.what, format!("{} ({place})", seen.says))
        }
    }
}

async fn trips(
    ends: &mut BusProbe,
    transport: &dyn TransportDescription,
    bus: &BusConfig,
    began: Instant,
    lines: &mut Vec<FindingLine>,
) -> Result<(), FailedBusCheck> {
    let limit = bus.publish_timeout.0;
    let in_step = |name| move |why| (name, why);
    ends.up(CONNECT).await.map_err(in_step("connect"))?;
    lines.push(FindingLine::took("connect", vec![began.elapsed()], CONNECT));
    let (mut published, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (taken, heard) = ends
            .round_trip(limit)
            .await
            .map_err(in_step("round trip"))?;
        published.push(taken);
        whole.push(heard);
    }
    lines.push(FindingLine::took("publish", published, limit));
    lines.push(FindingLine::took("round trip", whole, limit));
    lines.push(order(ends, limit).await.map_err(in_step("order"))?);
    lines.extend(
        size(ends, transport, bus)
            .await
            .map_err(in_step("largest event"))?,
    );
    if transport.trial_outlasts_absence() {
        lines.push(kept(ends, limit).await.map_err(in_step("kept"))?);
    }
    let back = ends
        .reconnect(CONNECT)
        .await
        .map_err(in_step("reconnect"))?;
    lines.push(FindingLine::took("reconnect", vec![back], CONNECT));
    Ok(())
}

/// Sends many events at once, and checks that all arrive, once, and in the order in which they were
/// published.
async fn order(ends: &mut BusProbe, limit: Duration) -> Result<FindingLine, String> {
    let burst = ends.events(BURST);
    ends.publish(&burst, limit).await?;
    let lost = ends.hear_all().await.len();
    let said = judged(&ends.came, lost);
    Ok(match lost == 0 && is_in_order(&ends.came) {
        true => FindingLine::fine("order", said),
        false => FindingLine::failed("order", said),
    })
}

fn judged(came: &[u64], lost: usize) -> String {
    let mut once = came.to_vec();
    once.sort_unstable();
    once.dedup();
    let order = match is_in_order(came) {
        true => "kept",
        false => "not kept, which nodes treat as lost events",
    };
    let duplicates = came.len() - once.len();
    let all = once.len() + lost;
    format!(
        "{order}; {} of {all} arrived, {duplicates} of them twice",
        once.len()
    )
}

/// Whether the events arrived in order. Duplicates are ignored, since nodes apply them once.
fn is_in_order(came: &[u64]) -> bool {
    let mut newest = 0;
    came.iter().enumerate().all(|(at, number)| {
        let again = came.iter().take(at).any(|earlier| earlier == number);
        let fits = again || *number > newest;
        newest = newest.max(*number);
        fits
    })
}

/// Checks the largest event with a value that nodes send, and the size that all nodes refuse. An
/// event of that size is not sent, since every gateway would warn of it.
async fn size(
    ends: &mut BusProbe,
    transport: &dyn TransportDescription,
    bus: &BusConfig,
) -> Result<Vec<FindingLine>, String> {
    let over = ends.event_of(MAX_BYTES + 1);
    let refused = BusEvent::decode(&over) == Err(EventFormatError::TooLarge);
    // This event is not sent, so its number must not be waited for.
    ends.forget_last();
    let mut lines = vec![match refused {
        true => FindingLine::fine("over 1 MiB", "refused by every node".to_owned()),
        false => FindingLine::failed(
            "over 1 MiB",
            "accepted, although events of this size must be refused".to_owned(),
        ),
    }];
    let largest = bus.broadcast_set_max_bytes;
    let keeps = transport.keeps_large_trial_events();
    if !bus.broadcast_set || bus.priming == Priming::Off || keeps {
        return Ok(lines);
    }
    // Everything but the keys is less than a tenth of an event.
    let event = ends.event_of(largest.as_usize() * 9 / 10);
    let limit = bus.publish_timeout.0;
    let took = ends.round_trip_of(event, limit).await?;
    lines.push(FindingLine::took("largest event", vec![took], limit));
    Ok(lines)
}

/// Checks that events published while the listener is away arrive when it is back.
async fn kept(ends: &mut BusProbe, limit: Duration) -> Result<FindingLine, String> {
    ends.cut_listener().await?;
    let events = ends.events(KEPT);
    ends.publish(&events, limit).await?;
    let lost = ends.hear_all().await.len();
    let said = format!(
        "{} of {KEPT} arrived after the listener was back",
        KEPT - lost.min(KEPT)
    );
    Ok(match lost {
        0 => FindingLine::fine("kept", said),
        _ => FindingLine::failed("kept", said),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_twice_is_counted_and_breaks_no_order() {
        assert!(is_in_order(&[1, 2, 2, 3, 1]));
        assert!(!is_in_order(&[1, 3, 2]));
        assert_eq!(
            judged(&[1, 2, 2, 3], 0),
            "kept; 3 of 3 arrived, 1 of them twice"
        );
        assert_eq!(judged(&[1, 4], 2), "kept; 2 of 4 arrived, 0 of them twice");
    }
}
