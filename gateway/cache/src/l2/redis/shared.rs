//! The Redis that nodes share, for others than the second tier: [`SharedRedis`].

use crate::l2::config::L2Config;

/// The second tier's Redis, which nodes share, as others than the second tier reach it.
pub struct SharedRedis<'a> {
    pub settings: lamina_base::redis::RedisConnectionSettings<'a>,
    /// All keys begin with this.
    pub prefix: String,
}

impl L2Config {
    /// The Redis of nodes with this namespace. None if the second tier is somewhere else.
    pub fn shared_redis(&self, namespace: Option<&str>) -> Option<SharedRedis<'_>> {
        let redis = self.redis.as_ref()?;
        Some(SharedRedis {
            settings: redis.connection(),
            prefix: redis.prefix_for(namespace),
        })
    }

    /// Returns whether there is a Redis that nodes share.
    pub fn has_shared_redis(&self) -> bool {
        self.redis.is_some()
    }
}
