//! The listing of players that encoders are measured on: JSON without spaces, the
//! same bytes as the Node.js control's `JSON.stringify` (`tests/record/listing.mjs`).
//!
//! Shared by `benches/record` and the codec's tests, through `#[path]`.

use std::fmt::Write;

/// The number of players for which the goals are stated.
pub const PLAYERS: u32 = 1_500;
/// The size of their listing as JSON, in bytes.
pub const BYTES: usize = 1_057_083;

/// The JSON of a page with `players` players, 6,399 at most (the day ends after them).
pub fn listing(players: u32) -> String {
    assert!(players < 6_400, "the recipe's times stay within one day");
    let all: Vec<_> = (0..players).map(player).collect();
    format!(
        r#"{{"pagination":{{"page":1,"perPage":{players},"total":{players},"hasMore":false}},"filters":{{"region":"global","mode":"ranked","season":12}},"players":[{}]}}"#,
        all.join(",")
    )
}

fn player(i: u32) -> String {
    let os = if i % 2 == 1 { "android" } else { "ios" };
    let model = if i.is_multiple_of(3) {
        "pixel-8-pro"
    } else {
        "iphone-15-pro-max"
    };
    let mut out = format!(
        r#"{{"id":"player-{i:08}","device":{{"os":"{os}","version":"17.4.1","model":"{model}","screen":{{"width":1290,"height":2796,"ppi":460}}}},"languages":["en-US","hi-IN","es-ES","fr-FR"],"userSnapshot":"#
    );
    push_snapshot(&mut out, i);
    push_cards(&mut out, i);
    let friends: Vec<_> = (0..5)
        .map(|slot| format!("\"player-{}\"", (i + slot) % 1_000))
        .collect();
    out + &format!(r#","friends":[{}]}}"#, friends.join(","))
}

fn push_snapshot(out: &mut String, i: u32) {
    let (level, vip, new) = (13 * i % 100, i.is_multiple_of(7), i.is_multiple_of(11));
    let (wins, losses, mmr) = (3 * i, 2 * i, 1_500 + i % 800);
    let at = 80_000 + i; // 1,700,000,000 s is 2023-11-14 22:13:20 UTC
    let (hour, minute, second) = (at / 3_600, at / 60 % 60, at % 60);
    let written = write!(
        out,
        r#"{{"name":"User Name {i}","email":"user_{i}@example.com","level":{level},"joinedAt":"2023-11-14T{hour:02}:{minute:02}:{second:02}.000Z","flags":{{"vip":{vip},"banned":false,"newUser":{new}}},"stats":{{"wins":{wins},"losses":{losses},"draws":{i},"mmr":{mmr}}}}}"#
    );
    written.expect("a String takes everything");
}

fn push_cards(out: &mut String, i: u32) {
    let (losses, streak, points) = (i + 1, i % 10, 1_234 + i);
    let written = write!(
        out,
        r#","infoCards":[{{"title":"stats","body":{{"wins":{i},"losses":{losses},"streak":{streak}}}}},{{"title":"rank","body":{{"tier":"gold","division":2,"points":{points}}}}},{{"title":"inventory","body":{{"gold":9999,"gems":250,"items":42}}}}]"#
    );
    written.expect("a String takes everything");
}
