//! JSON merge patch (RFC 7396).

use serde_json::{Map, Value};

use crate::api::error::ApiError;

/// Merges `patch` into `live`: null removes, objects merge, everything else replaces.
pub fn merge_patch(live: &mut Value, patch: Value) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request("error decoding patch: a merge patch must be a JSON object"));
    };
    merge(live, patch);
    Ok(())
}

fn merge(live: &mut Value, patch: Map<String, Value>) {
    if !live.is_object() {
        *live = Value::Object(Map::new());
    }
    let Some(live) = live.as_object_mut() else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                live.remove(&key);
            }
            Value::Object(patch) => merge(live.entry(key).or_insert(Value::Null), patch),
            value => {
                live.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::patch::strategic::test_values::any_value;

    #[test]
    fn the_rfcs_examples_hold() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut live, patch, expected) in cases {
            merge_patch(&mut live, patch).unwrap();
            assert_eq!(live, expected);
        }
        assert_eq!(merge_patch(&mut json!({}), json!([])).unwrap_err().code(), 400);
    }

    proptest! {
        #[test]
        fn agrees_with_the_json_patch_crate(mut live in any_value(), patch in any_value()) {
            let mut expected = live.clone();
            ::json_patch::merge(&mut expected, &patch);
            if patch.is_object() {
                merge_patch(&mut live, patch).unwrap();
                prop_assert_eq!(live, expected);
            }
        }
    }
}
