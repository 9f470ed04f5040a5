//! Requests at a steady rate, and how many of them a rate limit admits.

use std::time::{Duration, Instant};

use crate::client::Client;

/// One request of a steady stream.
#[derive(Clone, Copy, Debug)]
pub struct PacedRequest {
    pub sent: Instant,
    pub answered: Instant,
    pub status: u16,
}

impl PacedRequest {
    /// When the gateway has judged it, as far as that can be told from outside.
    fn judged(&self) -> Instant {
        self.sent + (self.answered - self.sent) / 2
    }

    pub fn has_passed(&self) -> bool {
        self.status == 200
    }
}

/// Asks for a page so often in a second, one request after the other, for a while. What a slow moment
/// has delayed is made up for.
pub async fn paced(client: &Client, path: &str, rate: u32, span: Duration) -> Vec<PacedRequest> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut requests = Vec::new();
    let end = Instant::now() + span;
    while Instant::now() < end {
        ticks.tick().await;
        let sent = Instant::now();
        let answer = client.get(path).await;
        requests.push(PacedRequest {
            sent,
            answered: Instant::now(),
            status: answer.status.as_u16(),
        });
    }
    requests
}

/// How many of these requests, which may be of several streams, a limit of `rate` a second admits
/// that had `left` of its burst when the first one came.
pub fn admitted(requests: &[PacedRequest], rate: f64, burst: f64, left: f64) -> usize {
    let mut moments: Vec<Instant> = requests.iter().map(PacedRequest::judged).collect();
    moments.sort();
    let Some(mut last) = moments.first().copied() else {
        return 0;
    };
    let mut tokens = left;
    let passed = moments.into_iter().filter(|now| {
        tokens = (tokens + (*now - last).as_secs_f64() * rate).min(burst);
        last = *now;
        let passes = tokens >= 1.0;
        tokens -= f64::from(u8::from(passes));
        passes
    });
    passed.count()
}

/// How many have passed.
pub fn passed(requests: &[PacedRequest]) -> usize {
    requests.iter().filter(|one| one.has_passed()).count()
}
