use serde_json::json;

use super::*;

#[test]
fn merges_mappings_and_replaces_everything_else() {
    for (original, patch, expected) in [
        (
            json!({"a": 1, "b": {"c": 1, "d": 2}}),
            json!({"b": {"c": 3, "d": null}, "e": 5}),
            json!({"a": 1, "b": {"c": 3}, "e": 5}),
        ),
        (json!({"l": [1, 2]}), json!({"l": [3]}), json!({"l": [3]})),
        (json!({"l": [{"name": "a", "v": 1}]}), json!({"l": [{"name": "b"}]}), json!({"l": [{"name": "b"}]})),
        (json!({"a": {"x": 1}}), json!({"a": "text"}), json!({"a": "text"})),
        (json!({"a": "text"}), json!({"a": {"x": 1, "y": null}}), json!({"a": {"x": 1}})),
        (json!({"a": 1}), json!({"none": null}), json!({"a": 1})),
        (json!(null), json!({"a": 1}), json!({"a": 1})),
    ] {
        let mut value = original.clone();
        merge(&mut value, &patch, Schema::Atomic).unwrap();
        assert_eq!(value, expected, "{original} + {patch}");
    }
}

#[test]
fn obeys_directives() {
    for (patch, expected) in [
        (json!({"m": {"$patch": "replace", "z": 9}}), json!({"m": {"z": 9}, "l": [1, 2, 3]})),
        (json!({"m": {"$patch": "delete"}}), json!({"m": {}, "l": [1, 2, 3]})),
        (json!({"$patch": "replace", "n": 1}), json!({"n": 1})),
        (json!({"m": {"$retainKeys": ["y", "n"], "n": 1}}), json!({"m": {"y": 2, "n": 1}, "l": [1, 2, 3]})),
        (json!({"$deleteFromPrimitiveList/l": [1, 3, 4]}), json!({"m": {"x": 1, "y": 2}, "l": [2]})),
        (json!({"new": {"$patch": "delete"}}), json!({"m": {"x": 1, "y": 2}, "l": [1, 2, 3]})),
        (json!({"$setElementOrder/l": [3, 1]}), json!({"m": {"x": 1, "y": 2}, "l": [2, 3, 1]})),
        (json!({"$deleteFromPrimitiveList/none": [1]}), json!({"m": {"x": 1, "y": 2}, "l": [1, 2, 3]})),
    ] {
        let mut value = json!({"m": {"x": 1, "y": 2}, "l": [1, 2, 3]});
        merge(&mut value, &patch, Schema::Atomic).unwrap();
        assert_eq!(value, expected, "{patch}");
    }
}

#[test]
fn refuses_directives_that_could_not_act() {
    for patch in [
        json!({"m": {"$patch": "merge"}}),
        json!({"m": {"$patch": 1}}),
        json!({"m": {"$setElementOrder/l": 1}}),
        json!({"m": {"$retainKeys": ["y"], "n": 1}}),
        json!({"m": {"$retainKeys": "y"}}),
        json!({"new": {"$patch": "replace", "x": 1}}),
        json!({"l": [{"$patch": "delete"}]}),
        json!({"$deleteFromPrimitiveList/m": [1]}),
        json!({"$deleteFromPrimitiveList/l": 1}),
        json!([1]),
    ] {
        assert!(merge(&mut json!({"m": {"x": 1}, "l": [1]}), &patch, Schema::Atomic).is_err(), "{patch} was accepted");
    }
}

fn spec(patched: &[Value]) -> Result<Value, StrategicError> {
    let mut pod = json!({"spec": {
        "containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}],
        "volumes": [{"name": "v", "hostPath": {"path": "/v"}}, {"name": "w", "hostPath": {"path": "/w"}}],
        "tolerations": [{"key": "k"}],
    }});
    for patch in patched {
        merge(&mut pod, &json!({ "spec": patch }), Schema::pod())?;
    }
    Ok(pod["spec"].take())
}

#[test]
fn merges_lists_of_a_pod_by_their_keys() {
    for (patch, at, expected) in [
        (json!({"containers": [{"name": "a", "image": "i"}]}), "/containers/0/image", json!("i")),
        (
            json!({"containers": [{"name": "a", "env": [{"name": "Z"}, {"name": "X", "value": "3"}]}]}),
            "/containers/0/env",
            json!([{"name": "Z"}, {"name": "X", "value": "3"}, {"name": "Y", "value": "2"}]),
        ),
        (
            json!({"containers": [{"name": "b"}, {"name": "a", "env": null}]}),
            "/containers",
            json!([{"name": "b"}, {"name": "a"}]),
        ),
        (
            json!({"volumes": [{"name": "v", "$patch": "delete"}, {"name": "absent", "$patch": "delete"}]}),
            "/volumes",
            json!([{"name": "w", "hostPath": {"path": "/w"}}]),
        ),
        (json!({"volumes": [{"$patch": "replace"}, {"name": "n"}]}), "/volumes", json!([{"name": "n"}])),
        (
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}),
            "/volumes/0",
            json!({"name": "v", "emptyDir": {}}),
        ),
        (json!({"tolerations": [{"key": "other"}]}), "/tolerations", json!([{"key": "other"}])),
        (json!({"$setElementOrder/volumes": [{"name": "w"}, {"name": "v"}]}), "/volumes/0/name", json!("w")),
    ] {
        assert_eq!(spec(std::slice::from_ref(&patch)).unwrap().pointer(at), Some(&expected), "{patch}");
    }
}

#[test]
fn refuses_what_a_pod_cannot_take() {
    for (patch, error) in [
        (json!({"containers": [{"image": "i"}]}), StrategicError::NoKey("name")),
        (json!({"containers": ["a"]}), StrategicError::MixedItems),
        (json!({"volumes": [{"name": "v", "$patch": "merge"}]}), StrategicError::Directive("$patch".into())),
        (json!({"volumes": [{"$patch": "delete"}]}), StrategicError::NoKey("name")),
        (json!({"tolerations": [{"$patch": "replace"}]}), StrategicError::Directive("$patch".into())),
        (
            json!({"$setElementOrder/volumes": [{"name": "v"}], "volumes": [{"name": "w"}]}),
            StrategicError::Order("volumes".into()),
        ),
    ] {
        assert_eq!(spec(std::slice::from_ref(&patch)), Err(error), "{patch}");
    }
}
