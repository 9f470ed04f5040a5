//! Finds out what the user that we log in as may not do, for `lamina doctor`.
//!
//! `ACL DRYRUN` would tell, but is itself a right that such a user lacks. So each command is tried
//! on a key that nobody uses, in a form that changes nothing there; what matters is only whether
//! the server refuses it for want of a right.

use lamina_base::redis::driver::{ClientLike, ClusterHash, CustomCommand, Value, redis_keyslot};

use super::RedisStore;
use super::fault::{fault, unexpected};
use super::script::RIGHTS;
use crate::l2::store::{StoreError, StoreRefusal, StoreRight};
use crate::redis::{ping, run_script};

impl RedisStore {
    /// Returns what this user lacks. Where it may not run scripts or reach our keys at all, that is all
    /// that can be found out.
    pub(super) async fn lacking(&self) -> Result<Vec<StoreRight>, StoreError> {
        let mut lacking = self.lacking_in_scripts().await?;
        lacking.extend(
            self.lacking_directly("XREAD", &["COUNT", "1", "STREAMS", &self.probed(), "0"])
                .await?,
        );
        lacking.extend(self.lacking_directly("INFO", &["memory"]).await?);
        if !self.may_subscribe().await {
            lacking.push(StoreRight::Subscribe(self.names.freed()));
        }
        Ok(lacking)
    }

    async fn lacking_in_scripts(&self) -> Result<Vec<StoreRight>, StoreError> {
        let index = if self.index_shards > 0 { "1" } else { "0" };
        let arguments = vec![self.names.freed().into(), index.into()];
        let answer = run_script(&RIGHTS, &self.client()?, vec![self.probed()], arguments).await;
        let answer = match answer.map_err(|error| fault(&error)) {
            Ok(answer) => answer,
            Err(failed) => return self.refused_right(failed).map(|right| vec![right]),
        };
        let names = answer.convert::<Vec<String>>();
        let names = names.map_err(|_| unexpected("the script of rights"))?;
        Ok(names.into_iter().map(|name| self.right_of(&name)).collect())
    }

    /// The right that a command on its own is refused for.
    async fn lacking_directly(
        &self,
        command: &'static str,
        words: &[&str],
    ) -> Result<Option<StoreRight>, StoreError> {
        let slot = ClusterHash::Custom(redis_keyslot(self.names.log().as_bytes()));
        let custom = CustomCommand::new_static(command, slot, false);
        let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
        let answer = self.client()?.custom::<Value, Value>(custom, words).await;
        match answer.map_err(|error| fault(&error)) {
            Err(StoreError::Refused(StoreRefusal::NoAccess, _)) => {
                Ok(Some(StoreRight::Command(command.to_lowercase())))
            }
            Ok(_) | Err(StoreError::Foreign(_)) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Whether the listener's connection is subscribed. The client library does not tell that the
    /// server refused it, but with RESP2 a subscriber's PING has an answer of its own.
    async fn may_subscribe(&self) -> bool {
        let Ok(client) = self.listening.client() else {
            return false;
        };
        let slot = ClusterHash::Custom(redis_keyslot(client.id().as_bytes()));
        matches!(ping(&client, &slot).await, Ok(Value::Array(_)))
    }

    /// The right for want of which all scripts are refused.
    fn refused_right(&self, failed: StoreError) -> Result<StoreRight, StoreError> {
        match failed {
            // As in `no permissions to run the 'eval' command`.
            StoreError::Refused(StoreRefusal::NoAccess, said) => match said.split('\'').nth(1) {
                Some(command) => Ok(StoreRight::Command(command.to_owned())),
                None => Ok(StoreRight::Keys(self.names.all())),
            },
            failed => Err(failed),
        }
    }

    fn right_of(&self, name: &str) -> StoreRight {
        match name {
            "&" => StoreRight::Publish(self.names.freed()),
            command => StoreRight::Command(command.to_owned()),
        }
    }

    fn probed(&self) -> String {
        self.names.probe(&self.names.log())
    }
}

impl StoreRight {
    /// The rule that grants it.
    pub(super) fn rule(&self) -> String {
        match self {
            Self::Command(name) => format!("+{name}"),
            Self::Keys(pattern) => format!("~{pattern}"),
            Self::Subscribe(channel) | Self::Publish(channel) => format!("&{channel}"),
        }
    }
}
