//! Policies as they stand in the file, for whoever wants to read them as they were written.

use serde_json::{Map, Value};

/// Every `[[policy]]` of a configuration as JSON, with the keys that it has in the file and no other. Nothing where the
/// text is no configuration.
pub fn policies_as_written(text: &str) -> Vec<Map<String, Value>> {
    let table = text.parse::<toml::Table>().unwrap_or_default();
    let policies = table.get("policy").and_then(toml::Value::as_array);
    let object = |policy: &toml::Value| match json(policy) {
        Value::Object(policy) => Some(policy),
        _ => None,
    };
    policies.into_iter().flatten().filter_map(object).collect()
}

fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(flag) => (*flag).into(),
        // TOML has a type for times, JSON has not.
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(list) => list.iter().map(json).collect(),
        toml::Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_come_as_they_were_written() {
        let text = "[gateway]\ndomain = \"a\"\n[[policy]]\nname = \"p\"\nwhen = { after = 2026-01-01T00:00:00Z, days = \
                    [\"mon\"] }\n[policy.allow.ssh]\nexec = true\n[[policy]]\nname = \"q\"\n";
        let expected = [
            json!({"name": "p", "when": {"after": "2026-01-01T00:00:00Z", "days": ["mon"]},
                "allow": {"ssh": {"exec": true}}}),
            json!({"name": "q"}),
        ];
        assert_eq!(policies_as_written(text).into_iter().map(Value::Object).collect::<Vec<_>>(), expected);
        for nothing in ["", "x", "policy = 1", "policy = [1]"] {
            assert!(policies_as_written(nothing).is_empty(), "{nothing}");
        }
    }
}
