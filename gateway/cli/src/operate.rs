//! The commands that ask a running gateway, or tell it something.

use lamina_edge::admin::config::{AdminConfig, AdminRight};
use lamina_edge::config::{self, ConfigProblem};

use crate::arguments::{
    self, AcmeCommand, AdminArguments, ChangedTarget, HealthArguments, L2Command,
    MaintenanceArguments, PlanArguments, PurgeArguments, UpstreamsCommand,
};
use crate::command::{runtime, with_config, with_remote};
use crate::exit::ExitOutcome;
use crate::output;
use crate::remote::{
    RemoteError, RemoteGateway, RemoteReadiness, RemoteReload, RemoteReloadOutcome, RequestsFilter,
    TargetChange,
};
use crate::upgrade;

/// Asks whether a gateway takes requests. What can't be known counts as no.
pub fn health(asked: &HealthArguments) -> anyhow::Result<ExitOutcome> {
    let unknown = |why: &dyn std::fmt::Display| {
        output::error(format_args!("not ready, as far as can be known: {why}"));
        Ok(ExitOutcome::Failed)
    };
    let read = match (&asked.admin, &asked.config) {
        (None, Some(file)) => Some((file, config::load(file))),
        _ => None,
    };
    // The gateway goes on although its file was broken since.
    let (admin, fault) = match (&asked.admin, read) {
        (Some(admin), _) => (admin.clone(), None),
        (None, None) => (AdminConfig::default().address, None),
        (None, Some((_, Ok(config)))) => (config.admin.address, None),
        (None, Some((file, Err(problems)))) => {
            let first = problems.iter().next().map(ConfigProblem::headline);
            let first = first.unwrap_or_default();
            match config::admin_of_broken(file) {
                Some(admin) => (admin.address, Some(first)),
                None => return unknown(&first),
            }
        }
    };
    let remote = RemoteGateway { admin, token: None };
    match runtime()?.block_on(remote.readiness(asked.timeout.into())) {
        Ok(ready @ RemoteReadiness::Ready(_)) => {
            output::line(ready);
            Ok(ExitOutcome::Well)
        }
        Ok(not_ready) => {
            output::error(not_ready);
            Ok(ExitOutcome::Failed)
        }
        Err(error) => match fault {
            Some(fault) => unknown(&format_args!("{error}; its file: {fault}")),
            None => unknown(&error),
        },
    }
}

/// Purges, and reports where the purge holds.
pub fn purge(purge: &PurgeArguments) -> anyhow::Result<ExitOutcome> {
    let (asked, wait) = (
        purge.asked(),
        purge.wait.map_or_else(Default::default, Into::into),
    );
    with_remote(&purge.admin, AdminRight::Purge, |remote| {
        match runtime()?.block_on(remote.purge(&asked, wait)) {
            Ok(receipt) => {
                output::text(&receipt);
                Ok(ExitOutcome::of(receipt.holds()))
            }
            // The gateway may have received the request.
            Err(error @ (RemoteError::Timeout(_) | RemoteError::Broken(_))) => {
                output::error(format_args!(
                    "lamina: it is unknown where the purge applies: {error}"
                ));
                Ok(ExitOutcome::Unknown)
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// Has the gateway read its configuration again.
pub fn reload(admin: &AdminArguments, json: bool) -> anyhow::Result<ExitOutcome> {
    with_remote(admin, AdminRight::Config, |remote| {
        let reload = runtime()?.block_on(remote.reload())?;
        Ok(print_reload(&reload, json))
    })
}

/// Prints what a running gateway would do with another configuration.
pub fn plan(asked: &PlanArguments) -> anyhow::Result<ExitOutcome> {
    with_config(&asked.config, |config| {
        let token = match &asked.token_file {
            Some(file) => Some(arguments::read_token(file)?),
            None => config
                .admin
                .token_for(AdminRight::Config)
                .map(str::to_owned),
        };
        let remote = RemoteGateway {
            admin: asked.against.clone().unwrap_or(config.admin.address),
            token,
        };
        let file = upgrade::absolute(&asked.config)?;
        let planned = runtime()?.block_on(remote.plan(&file))?;
        let outcome = print_reload(&planned, asked.json);
        let most = asked.max_unreachable.unwrap_or(u64::MAX);
        Ok(match outcome {
            ExitOutcome::Well if planned.unreachable() > most => {
                output::error(format_args!(
                    "lamina: more than {most} stored entries would be unreachable"
                ));
                ExitOutcome::Failed
            }
            outcome => outcome,
        })
    })
}

fn print_reload(reload: &RemoteReload, json: bool) -> ExitOutcome {
    match (json, reload.outcome) {
        (true, _) => output::line(format_args!("{:#}", reload.json())),
        (false, RemoteReloadOutcome::Good) => output::text(reload),
        (false, _) => output::error(reload.to_string().trim_end()),
    }
    match reload.outcome {
        RemoteReloadOutcome::Good => ExitOutcome::Well,
        RemoteReloadOutcome::Wrong => ExitOutcome::Wrong,
        RemoteReloadOutcome::Refused => ExitOutcome::Failed,
    }
}

/// Lists the nodes.
pub fn nodes(admin: &AdminArguments) -> anyhow::Result<ExitOutcome> {
    with_remote(admin, AdminRight::Read, |remote| {
        output::text(runtime()?.block_on(remote.nodes())?);
        Ok(ExitOutcome::Well)
    })
}

/// Prints the last requests.
pub fn requests(
    admin: &AdminArguments,
    filter: &RequestsFilter,
    json: bool,
) -> anyhow::Result<ExitOutcome> {
    with_remote(admin, AdminRight::Read, |remote| {
        let requests = runtime()?.block_on(remote.requests(filter))?;
        match json {
            true => output::line(serde_json::to_string_pretty(requests.json())?),
            false => output::text(&requests),
        }
        Ok(ExitOutcome::Well)
    })
}

/// Lists keys of the second tier.
pub fn second_tier(command: &L2Command) -> anyhow::Result<ExitOutcome> {
    let L2Command::Keys {
        pattern,
        limit,
        admin,
    } = command;
    with_remote(admin, AdminRight::Read, |remote| {
        let keys = remote.keys(pattern.as_deref(), *limit);
        output::text(runtime()?.block_on(keys)?);
        Ok(ExitOutcome::Well)
    })
}

/// Lists the targets of upstreams, or changes one.
pub fn targets(
    command: Option<&UpstreamsCommand>,
    admin: &AdminArguments,
    json: bool,
) -> anyhow::Result<ExitOutcome> {
    match command {
        Some(command) => change_target(command),
        None => upstreams(admin, json),
    }
}

/// Lists the targets of upstreams.
fn upstreams(admin: &AdminArguments, json: bool) -> anyhow::Result<ExitOutcome> {
    with_remote(admin, AdminRight::Read, |remote| {
        let list = runtime()?.block_on(remote.upstreams())?;
        match json {
            true => output::line(serde_json::to_string_pretty(list.json())?),
            false => output::text(list),
        }
        Ok(ExitOutcome::Well)
    })
}

/// Takes a target out, or makes it ready again.
fn change_target(command: &UpstreamsCommand) -> anyhow::Result<ExitOutcome> {
    let taken_out = |state, asked: &ChangedTarget| TargetChange {
        state,
        lasts: asked.lasts,
        outlives_process: asked.keep,
    };
    let (change, target, admin) = match command {
        UpstreamsCommand::Drain(asked) => (taken_out("drain", asked), &asked.target, &asked.admin),
        UpstreamsCommand::Out(asked) => (taken_out("out", asked), &asked.target, &asked.admin),
        UpstreamsCommand::Ready { target, admin } => {
            let ready = TargetChange {
                state: "ready",
                lasts: None,
                outlives_process: false,
            };
            (ready, target, admin)
        }
    };
    with_remote(admin, AdminRight::Targets, |remote| {
        let names = (&*target.upstream, &*target.target);
        let changed = runtime()?.block_on(remote.change_target(names, change))?;
        output::text(changed);
        Ok(ExitOutcome::Well)
    })
}

/// Closes a route for maintenance, or opens it.
pub fn switch_maintenance(asked: &MaintenanceArguments) -> anyhow::Result<ExitOutcome> {
    with_remote(&asked.admin, AdminRight::Config, |remote| {
        let (state, allow) = (asked.state.as_str(), asked.allow.as_slice());
        let switched = remote.switch_maintenance(&asked.route, (state, asked.lasts), allow);
        output::line(runtime()?.block_on(switched)?);
        Ok(ExitOutcome::Well)
    })
}

/// Asks about automatic certificates, or for other ones.
pub fn certificates(command: &AcmeCommand) -> anyhow::Result<ExitOutcome> {
    let (admin, right) = match command {
        AcmeCommand::Status { admin } => (admin, AdminRight::Read),
        AcmeCommand::Renew { admin, .. } | AcmeCommand::Revoke { admin, .. } => {
            (admin, AdminRight::Certificates)
        }
    };
    with_remote(admin, right, |remote| {
        let runtime = runtime()?;
        match command {
            AcmeCommand::Status { .. } => output::text(runtime.block_on(remote.certificates())?),
            AcmeCommand::Renew { name, .. } => {
                output::text(runtime.block_on(remote.renew_certificate(name))?);
            }
            AcmeCommand::Revoke { name, .. } => {
                output::text(runtime.block_on(remote.revoke_certificate(name))?);
            }
        }
        Ok(ExitOutcome::Well)
    })
}
