//! What a client may send below HTTP/3: frames of QUIC that carry nothing and cost something.
//!
//! quinn handles these frames and says only how many there were. So their numbers are looked at once
//! a second, which costs a connection next to nothing; what a client may cost in between is bounded by
//! what can be sent in a second.
//!
//! | Frames | Why they have a budget |
//! |---|---|
//! | `PATH_CHALLENGE` | each is answered by a datagram of 1,200 octets, to any address that it came from |
//! | `NEW_CONNECTION_ID` | each makes us give back one of the ids before it |
//! | `RETIRE_CONNECTION_ID` | each makes us give out another id, which quinn keeps until the client has acknowledged it |
//! | `STREAM` | small pieces with gaps between them have to be put in order over and over |
//! | all of them | a frame of an octet or two takes as long as a larger one |

use std::time::Duration;

use quinn::{Connection, ConnectionStats, FrameStats};
use tokio::time::{Instant, sleep};

use crate::http3::Http3Excess;

/// How often the numbers are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Challenges and new ids of a client: so many at once, and so many more each second. Clients send
/// some when their address changes.
const RARE_FRAMES: u64 = 256;
const RARE_FRAMES_PER_SECOND: u64 = 64;

/// Ids that a client may give back each second, beyond the same number at once. What quinn keeps for
/// them it may have to keep for as long as the connection lives.
const RETIRED_PER_SECOND: u64 = 1;

/// Frames that are never too many, whatever stands in them.
const FREE_FRAMES: u64 = 4_096;
/// The octets of all datagrams that must have come for a further frame, and for a further piece of a
/// stream. A request that is as small as can be has more, and one piece more for its end.
const OCTETS_OF_FRAME: u64 = 4;
const OCTETS_OF_PIECE: u64 = 8;

/// Waits until the client has sent too much of something, if it ever does.
pub(super) async fn exceeded(connection: &Connection) -> Http3Excess {
    let began = Instant::now();
    loop {
        sleep(LOOK).await;
        if let Some(excess) = excess(&connection.stats(), began.elapsed()) {
            return excess;
        }
    }
}

/// What there was too much of on a connection that has lived for so long.
fn excess(stats: &ConnectionStats, lived: Duration) -> Option<Http3Excess> {
    let (frames, octets) = (&stats.frame_rx, stats.udp_rx.bytes);
    let earned = |per_second: u64| RARE_FRAMES + per_second * lived.as_secs();
    if frames.path_challenge > earned(RARE_FRAMES_PER_SECOND) {
        return Some(Http3Excess::PathChallenges);
    }
    if frames.new_connection_id > earned(RARE_FRAMES_PER_SECOND)
        || frames.retire_connection_id > earned(RETIRED_PER_SECOND)
    {
        return Some(Http3Excess::ConnectionIds);
    }
    let too_small = frames.stream > FREE_FRAMES + octets / OCTETS_OF_PIECE
        || all(frames) > FREE_FRAMES + octets / OCTETS_OF_FRAME;
    too_small.then_some(Http3Excess::SmallFrames)
}

fn all(frames: &FrameStats) -> u64 {
    [
        frames.acks,
        frames.ack_frequency,
        frames.crypto,
        frames.data_blocked,
        frames.immediate_ack,
        frames.max_data,
        frames.max_stream_data,
        frames.max_streams_bidi,
        frames.max_streams_uni,
        frames.new_connection_id,
        frames.path_challenge,
        frames.path_response,
        frames.ping,
        frames.reset_stream,
        frames.retire_connection_id,
        frames.stop_sending,
        frames.stream,
        frames.stream_data_blocked,
        frames.streams_blocked_bidi,
        frames.streams_blocked_uni,
    ]
    .iter()
    .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        octets: u64,
        seconds: u64,
        count: impl FnOnce(&mut FrameStats),
    ) -> Option<Http3Excess> {
        let mut stats = ConnectionStats::default();
        stats.udp_rx.bytes = octets;
        count(&mut stats.frame_rx);
        excess(&stats, Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_rare_is_earned_by_time() {
        let challenges = Some(Http3Excess::PathChallenges);
        let ids = Some(Http3Excess::ConnectionIds);
        let lots = 1 << 30;
        assert_eq!(found(lots, 0, |frames| frames.path_challenge = 256), None);
        assert_eq!(
            found(lots, 0, |frames| frames.path_challenge = 257),
            challenges
        );
        assert_eq!(found(lots, 10, |frames| frames.path_challenge = 896), None);
        assert_eq!(
            found(lots, 10, |frames| frames.path_challenge = 897),
            challenges
        );
        assert_eq!(
            found(lots, 10, |frames| frames.new_connection_id = 896),
            None
        );
        assert_eq!(
            found(lots, 10, |frames| frames.new_connection_id = 897),
            ids
        );
        assert_eq!(
            found(lots, 10, |frames| frames.retire_connection_id = 266),
            None
        );
        assert_eq!(
            found(lots, 10, |frames| frames.retire_connection_id = 267),
            ids
        );
    }

    #[test]
    fn what_is_small_is_earned_by_octets() {
        let small = Some(Http3Excess::SmallFrames);
        assert_eq!(found(8_000, 0, |frames| frames.stream = 5_096), None);
        assert_eq!(found(8_000, 0, |frames| frames.stream = 5_097), small);
        assert_eq!(found(8_000, 99, |frames| frames.stream = 5_097), small);
        assert_eq!(found(8_000, 0, |frames| frames.ping = 6_096), None);
        assert_eq!(found(8_000, 0, |frames| frames.ping = 6_097), small);
        let together = |frames: &mut FrameStats| (frames.max_data, frames.acks) = (3_000, 3_097);
        assert_eq!(found(8_000, 0, together), small);
    }

    /// Many requests of the smallest kind in each datagram, whose ends come in frames of their own,
    /// and whose answers are acknowledged.
    #[test]
    fn the_smallest_requests_are_borne() {
        for requests in [1_000_u64, 1_000_000, 1_000_000_000] {
            let octets = requests * 26;
            let seen = found(octets, 0, |frames| {
                frames.stream = 2 * requests;
                frames.acks = requests;
                frames.max_stream_data = requests;
            });
            assert_eq!(seen, None, "{requests}");
        }
    }
}
