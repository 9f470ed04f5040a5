//! The plugins in `plugins/`: each answers what the cases beside its source say.

use e2e::cli::{repository, run};

#[test]
fn every_shipped_plugin_answers_what_its_cases_say() {
    let plugins = repository().join("plugins");
    let folders = std::fs::read_dir(&plugins).unwrap().map(Result::unwrap);
    let mut tried = 0;
    for folder in folders.filter(|folder| folder.path().join("README.md").exists()) {
        let name = folder.file_name().into_string().unwrap();
        let code = plugins.join(format!("dist/{name}.wasm"));
        let cases = folder.path().join("cases.yaml");
        let [code, cases] = [code, cases].map(|path| path.to_str().unwrap().to_owned());
        let ran = run(&["plugin", "test", &code, "--cases", &cases]);
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.output());
        tried += 1;
    }
    assert!(tried >= 11, "{tried}");
}
