//! What plugin authors in other languages get matches the contract.

use std::fmt::Write;

use super::*;

#[test]
fn the_c_kit_holds_the_worlds_of_the_contract() {
    for (world, file) in [
        ("key-plugin", "key_plugin_component_type.s"),
        ("loader-plugin", "loader_plugin_component_type.s"),
    ] {
        let file = top().join("plugin-sdk/c").join(file);
        let wanted = assembly(world);
        if std::env::var_os("LAMINA_BLESS").is_some() {
            std::fs::write(&file, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            found == wanted,
            "{} is not of plugin-sdk/wit; see plugin-sdk/c/README.md",
            file.display()
        );
    }
}

fn assembly(world: &str) -> String {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(top().join("plugin-sdk/wit")).unwrap();
    let id = resolve.select_world(&[package], Some(world)).unwrap();
    let encoding = wit_component::StringEncoding::UTF8;
    let section = wit_component::metadata::encode(&resolve, id, encoding, None).unwrap();
    let mut text = format!(
        "# The world `{world}` of plugin-sdk/wit in binary form. Generated; see README.md.\n\
        \t.section \".custom_section.component-type:{world}\",\"\",@\n",
    );
    for line in section.chunks(32) {
        let text_of = |byte: &u8| match byte {
            b'"' | b'\\' => format!("\\{}", *byte as char),
            b' '..=b'~' => (*byte as char).to_string(),
            _ => format!("\\{byte:03o}"),
        };
        let line: String = line.iter().map(text_of).collect();
        writeln!(text, "\t.ascii \"{line}\"").unwrap();
    }
    text
}
