//! Scripts that Redis runs as one step.

use super::driver::{Client, Error, LuaInterface, Script, Value};

/// Runs a script with these keys and arguments. Its text is sent only where Redis does not know it.
///
/// # Errors
/// If Redis does not answer, or the script fails there.
pub async fn run_script(
    script: &Script,
    client: &Client,
    keys: Vec<String>,
    arguments: Vec<Value>,
) -> Result<Value, Error> {
    let known = client
        .evalsha(script.sha1().clone(), keys.clone(), arguments.clone())
        .await;
    match (known, script.lua()) {
        (Err(error), Some(text)) if is_unknown_script(&error) => {
            client.eval(text.clone(), keys, arguments).await
        }
        (answer, _) => answer,
    }
}

/// Whether Redis does not know the script by its hash.
fn is_unknown_script(error: &Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}
