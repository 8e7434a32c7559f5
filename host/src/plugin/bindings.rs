//! Generated from `wit/`. Nothing else belongs here.

wasmtime::component::bindgen!({
    path: "../wit/runner",
    world: "mortise:runner/every-kind",
    imports: { default: async },
    exports: { default: async },
});
