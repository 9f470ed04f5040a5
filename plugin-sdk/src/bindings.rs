//! What `wit-bindgen` makes of `wit/`: one module a world, so that a plugin exports
//! only the hooks that it has. Plugins use it through the macros of this crate; the
//! modules are public because those macros expand elsewhere.

#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "wit",
    world: "describing",
    pub_export_macro: true,
    export_macro_name: "export_describing",
    default_bindings_module: "lamina_plugin::bindings",
    additional_derives: [PartialEq, Eq, Clone],
});

pub mod keying {
    wit_bindgen::generate!({
        path: "wit",
        world: "keying",
        pub_export_macro: true,
        export_macro_name: "export_keying",
        default_bindings_module: "lamina_plugin::bindings::keying",
        with: { "lamina:plugin/types@1.0.0": crate::bindings::lamina::plugin::types },
    });
}

pub mod asking {
    wit_bindgen::generate!({
        path: "wit",
        world: "asking",
        pub_export_macro: true,
        export_macro_name: "export_asking",
        default_bindings_module: "lamina_plugin::bindings::asking",
        with: { "lamina:plugin/types@1.0.0": crate::bindings::lamina::plugin::types },
    });
}

pub mod answering {
    wit_bindgen::generate!({
        path: "wit",
        world: "answering",
        pub_export_macro: true,
        export_macro_name: "export_answering",
        default_bindings_module: "lamina_plugin::bindings::answering",
        with: { "lamina:plugin/types@1.0.0": crate::bindings::lamina::plugin::types },
    });
}

/// Imports alone: what a plugin does not use, its component does not import.
pub mod granted {
    wit_bindgen::generate!({
        path: "wit",
        world: "granted",
    });
}

pub mod loading {
    wit_bindgen::generate!({
        path: "wit",
        world: "loading",
        pub_export_macro: true,
        export_macro_name: "export_loading",
        default_bindings_module: "lamina_plugin::bindings::loading",
        with: { "lamina:plugin/types@1.0.0": crate::bindings::lamina::plugin::types },
        additional_derives: [PartialEq, Eq, Clone],
    });
}
