//! The result of a command, and the exit code that tells it.

use std::process::ExitCode;

use lamina_edge::app::GatewayStartError;

use crate::output;
use crate::remote::RemotePurgeCoverage;

/// The result of a command.
pub enum ExitOutcome {
    Well,
    /// A check has failed, and this has been reported.
    Failed,
    /// The result can't be known, and the reason has been reported.
    Unknown,
    /// The command line or the configuration is wrong, and this has been reported.
    Wrong,
}

impl From<()> for ExitOutcome {
    fn from((): ()) -> Self {
        Self::Well
    }
}

impl ExitOutcome {
    /// The outcome of a purge. Reports if the purge does not hold everywhere.
    pub fn of(holds: RemotePurgeCoverage) -> Self {
        match holds {
            RemotePurgeCoverage::Everywhere => Self::Well,
            RemotePurgeCoverage::NotEverywhere => {
                output::error(
                    "lamina: not every node (or not the second tier) has confirmed the purge",
                );
                Self::Failed
            }
            RemotePurgeCoverage::Unknown => Self::Unknown,
        }
    }
}

/// The exit code of a command. Reports its error.
pub fn code(ended: anyhow::Result<ExitOutcome>) -> ExitCode {
    match ended {
        Ok(ExitOutcome::Well) => ExitCode::SUCCESS,
        Ok(ExitOutcome::Failed) => ExitCode::FAILURE,
        Ok(ExitOutcome::Wrong) => ExitCode::from(2),
        Ok(ExitOutcome::Unknown) => ExitCode::from(3),
        Err(error) => {
            output::error(format_args!("lamina: {error:#}"));
            let start = error.downcast_ref::<GatewayStartError>();
            match start.is_some_and(GatewayStartError::is_configuration) {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}
