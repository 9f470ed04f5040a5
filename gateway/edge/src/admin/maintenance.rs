//! The maintenance of routes over the admin listener.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::proxy::Generation;
use crate::proxy::rules::maintenance::{MaintenanceOrder, MaintenanceState, RouteMaintenance};
use crate::units::ConfigDuration;

/// The body of `POST /v1/routes/NAME/maintenance`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MaintenanceBody {
    #[serde(default)]
    state: WantedState,
    #[serde(rename = "for", default)]
    lasts: Option<ConfigDuration>,
    #[serde(default)]
    allow: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WantedState {
    #[default]
    On,
    Off,
    /// As the configuration says.
    Configured,
}

/// Switches the maintenance of a route.
pub fn switch(generation: &Generation, route: &str, body: &Value) -> (StatusCode, Value) {
    let refused = |status, message: String| (status, json!({"error": message}));
    let now = Instant::now();
    let order = match order(body, now) {
        Ok(order) => order,
        Err(message) => return refused(StatusCode::BAD_REQUEST, message),
    };
    let Some(maintenance) = generation.maintenance_of(route) else {
        let message = format!("there is no route {route:?}");
        return refused(StatusCode::NOT_FOUND, message);
    };
    maintenance.switch.set(order);
    (StatusCode::OK, told(route, maintenance, now))
}

fn order(body: &Value, now: Instant) -> Result<Option<MaintenanceOrder>, String> {
    const FORM: &str = "expected {\"state\": \"on\", \"for\": \"30m\", \"allow\": [\"10.0.0.0/8\"]}, with `on`, `off` or `configured`, `for` only where what the configuration says is to hold again by itself, and `allow` only beside `on`";
    if !body.is_object() {
        return Err(FORM.to_owned());
    }
    let body = MaintenanceBody::deserialize(body).map_err(|error| format!("{error}; {FORM}"))?;
    let lasts = body.lasts.map(Duration::from);
    if lasts == Some(Duration::ZERO) {
        return Err(format!("`for` is 0; {FORM}"));
    }
    if body.state != WantedState::On && !body.allow.is_empty() {
        return Err(format!("`allow` beside another state; {FORM}"));
    }
    let state = match body.state {
        WantedState::On => MaintenanceState::On,
        WantedState::Off => MaintenanceState::Off,
        WantedState::Configured if lasts.is_some() => {
            return Err(format!("`for` beside `configured`; {FORM}"));
        }
        WantedState::Configured => return Ok(None),
    };
    let allow = body.allow.iter().map(|network| {
        network
            .parse()
            .map_err(|_| format!("{network:?} is no network; {FORM}"))
    });
    Ok(Some(MaintenanceOrder {
        state,
        until: lasts.and_then(|lasts| now.checked_add(lasts)),
        allow: allow.collect::<Result<_, _>>()?,
    }))
}

fn told(route: &str, maintenance: &RouteMaintenance, now: Instant) -> Value {
    let (state, until) = maintenance.state(now);
    json!({
        "route": route,
        "maintenance": match state {
            MaintenanceState::On => "on",
            MaintenanceState::Off => "off",
        },
        "by": match maintenance.switch.order(now) {
            Some(_) => "operator",
            None => "configuration",
        },
        "for_s": until.map(|until| until.duration_since(now).as_secs()),
    })
}
