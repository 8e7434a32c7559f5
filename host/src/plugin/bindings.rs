//! Generated from `wit/`. Nothing else belongs here.
#![expect(clippy::all, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../wit/preflight",
    world: "mortise:preflight/plugin",
    imports: { default: async },
    exports: { default: async },
});
