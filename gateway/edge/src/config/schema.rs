//! The JSON Schema for editors, made from the types and their doc comments.
//!
//! Numbers and truth values may also be written as `${VAR}`. The schema says so; otherwise an
//! editor would mark values that the gateway accepts.

use schemars::transform::{Transform, transform_subschemas};
use schemars::{Schema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::GatewayConfig;

/// The JSON Schema (draft 2020-12) of the configuration file.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12()
        .with_transform(AllowVariables)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<GatewayConfig>();
    schema.insert("title".to_owned(), json!("Lamina configuration"));
    schema.to_value()
}

#[derive(Clone, Debug)]
struct AllowVariables;

impl Transform for AllowVariables {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(types) = schema.get_mut("type") {
            let mut all = match types {
                Value::String(one) => vec![json!(one)],
                Value::Array(many) => many.clone(),
                _ => Vec::new(),
            };
            let scalar = all
                .iter()
                .any(|t| ["integer", "number", "boolean"].iter().any(|s| t == s));
            if scalar && !all.contains(&json!("string")) {
                all.push(json!("string"));
                *types = Value::Array(all);
                schema.insert("pattern".to_owned(), json!(r"\$\{"));
            }
        }
        transform_subschemas(self, schema);
    }
}
