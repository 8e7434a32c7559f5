//! Generated from `wit/`. Nothing else belongs here.

wasmtime::component::bindgen!({
    path: "../wit/preflight",
    world: "mortise:preflight/plugin",
    imports: { default: async },
    exports: { default: async },
});
