//! Conditions about `req.http.host`.

use super::condition::VclCondition;
use super::patterns;

/// Patterns for hosts out of a condition that is about nothing else. Capital and small letters are the
/// same in hosts.
pub fn of(condition: &VclCondition) -> Option<Vec<String>> {
    let mut hosts = Vec::new();
    for alternative in condition.alternatives() {
        let (left, operator, right) = alternative.comparison()?;
        if left != "req.http.host" {
            return None;
        }
        match operator {
            "==" => hosts.push(right.to_owned()),
            "~" => {
                let list = patterns::values(right)?;
                hosts.extend(list.patterns.iter().map(|one| without_any_port(one)));
            }
            _ => return None,
        }
    }
    // Ports are no part of a pattern, and `?` is not understood there.
    let plain = |host: &mut String| {
        *host = host.replace('?', "*");
        !host.is_empty() && !host.contains([':', '/', '@', '#', '\\', ' '])
    };
    hosts.iter_mut().all(plain).then(|| {
        hosts.sort();
        hosts.dedup();
        hosts
    })
}

/// A pattern without the part that stands for any port.
fn without_any_port(pattern: &str) -> String {
    let is_any = |port: &str| !port.is_empty() && port.chars().all(|c| matches!(c, '?' | '*'));
    match pattern.split_once(':') {
        Some((host, port)) if is_any(port) => host.to_owned(),
        _ => pattern.to_owned(),
    }
}
