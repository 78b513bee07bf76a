//! What the project's scripts do on machines of every kind.

mod machine;
mod wasm_target;
mod test_setup;
