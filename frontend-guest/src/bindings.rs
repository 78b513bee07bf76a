//! Generated from `wit/policy.wit`. Nothing else in this crate touches the component ABI.
#![allow(missing_docs, reason = "the WIT documents what is generated from it")]

wit_bindgen::generate!({
    path: "../wit",
    world: "front-end",
    additional_derives: [Clone, PartialEq, Eq],
    pub_export_macro: true,
    export_macro_name: "export_component",
});
