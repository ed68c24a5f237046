//! Arbitrary JSON values for property tests of patches.

use proptest::prelude::*;
use serde_json::Value;

/// Keys are few, so that two values often meet, and some are directives.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[abc]",
        2 => Just("name".to_owned()),
        1 => Just("containers".to_owned()),
        1 => Just("spec".to_owned()),
        1 => Just("finalizers".to_owned()),
        1 => Just("metadata".to_owned()),
        1 => Just("$patch".to_owned()),
        1 => Just("$retainKeys".to_owned()),
        1 => Just("$setElementOrder/containers".to_owned()),
        1 => Just("$deleteFromPrimitiveList/finalizers".to_owned()),
    ]
}

/// Any JSON value.
pub(in crate::api) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (0..3i64).prop_map(Value::from),
        "delete|replace|merge|[ab]".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(key(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
