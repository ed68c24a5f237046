//! JSON patch (RFC 6902) with upstream's limits.

use json_patch::jsonptr::Pointer;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::api::error::ApiError;

/// The most operations in one patch.
const MAX_OPERATIONS: usize = 10_000;
/// The most bytes that `copy` operations of one patch may add.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Applies the operations of `patch` to `live`, which is left undefined on failure.
pub fn json_patch(live: &mut Value, patch: Value) -> Result<(), ApiError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(ApiError::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let Patch(operations) = serde_json::from_value(patch)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let mut copied = 0;
    for operation in operations {
        if let PatchOperation::Copy(copy) = &operation {
            copied += size_at(live, &copy.from);
            if copied > MAX_COPIED {
                return Err(ApiError::unprocessable(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding \
                     the limit {MAX_COPIED}"
                )));
            }
        }
        let path = operation.path().to_string();
        json_patch::patch(live, &[operation])
            .map_err(|error| ApiError::unprocessable(format!("{path}: {}", error.kind)))?;
    }
    Ok(())
}

/// How many bytes the value under `pointer` has when it is written.
fn size_at(value: &Value, pointer: &Pointer) -> usize {
    match pointer.resolve(value) {
        Ok(Value::String(text)) => text.len() + 2,
        Ok(value) => value.to_string().len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::patch::strategic::test_values::any_value;

    #[test]
    fn operations_apply_in_order() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "x"}]}, "metadata": {"labels": {"a/b": "1"}}});
        let patch = json!([
            {"op": "test", "path": "/spec/containers/0/name", "value": "a"},
            {"op": "replace", "path": "/spec/containers/0/image", "value": "y"},
            {"op": "add", "path": "/spec/containers/-", "value": {"name": "b"}},
            {"op": "remove", "path": "/metadata/labels/a~1b"},
            {"op": "copy", "from": "/spec/containers/0/image", "path": "/spec/containers/1/image"},
            {"op": "move", "from": "/spec/containers/1/name", "path": "/metadata/name"},
        ]);
        json_patch(&mut pod, patch).unwrap();
        assert_eq!(
            pod,
            json!({"spec": {"containers": [{"name": "a", "image": "y"}, {"image": "y"}]}, "metadata": {"labels": {}, "name": "b"}})
        );
    }

    #[test]
    fn what_does_not_fit_is_a_422_and_what_is_no_patch_a_400() {
        let cases = [
            (json!([{"op": "remove", "path": "/none"}]), 422),
            (json!([{"op": "test", "path": "/a", "value": 2}]), 422),
            (json!([{"op": "add", "path": "/b/c", "value": 2}]), 422),
            (json!([{"op": "add", "path": "/l/5", "value": 2}]), 422),
            (json!([{"op": "replace", "path": "/none", "value": 2}]), 422),
            (json!([{"op": "jump", "path": "/a"}]), 400),
            (json!([{"op": "add", "path": "a", "value": 2}]), 400),
            (json!({"a": 1}), 400),
            (json!("x"), 400),
        ];
        for (patch, code) in cases {
            let error = json_patch(&mut json!({"a": 1, "l": []}), patch.clone()).unwrap_err();
            assert_eq!(error.code(), code, "{patch}");
        }
        let error =
            json_patch(&mut json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}])).unwrap_err();
        assert_eq!(error.message(), "/a: value did not match");
    }

    #[test]
    fn limits_hold() {
        let many = vec![json!({"op": "add", "path": "/a", "value": 1}); MAX_OPERATIONS + 1];
        assert_eq!(json_patch(&mut json!({}), Value::Array(many)).unwrap_err().code(), 413);
        let doubling: Vec<_> =
            (0..60).map(|i| json!({"op": "copy", "from": "", "path": format!("/k{i}")})).collect();
        let error = json_patch(&mut json!({"a": "x".repeat(100)}), Value::Array(doubling)).unwrap_err();
        assert_eq!(error.code(), 422);
        assert!(error.message().contains("accumulated size increase"), "{error}");
    }

    proptest! {
        #[test]
        fn no_patch_panics(mut live in any_value(), from in "(/[ab0~-]{0,2}){0,3}", path in "(/[ab0~-]{0,2}){0,3}",
            op in "add|remove|replace|move|copy|test", value in any_value()) {
            let patch = json!([{"op": op, "from": from, "path": path, "value": value}]);
            let _result = json_patch(&mut live, patch);
        }
    }
}
