//! Files in odd states: pipes in which nobody writes, and links that lead elsewhere from one moment to
//! the next. Nothing of it may hold up a later reload.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use e2e::cli::run;
use e2e::gateway::Gateway;
use e2e::named_pipe;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};

#[tokio::test]
async fn a_pipe_in_place_of_a_file_is_refused_and_holds_up_nobody() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let setup = || {
        Setup::new(&origin)
            .file("page.html", "page")
            .file("token", "a-token-for-purges")
    };
    let gateway = setup().start().await;
    let purge = "{enabled: true, token_file: token}";
    let answers = "{name: site, respond: {file: page.html}}";
    let secured = "{certificates: [{cert: site.crt, key: site.key}]}";
    let local = "certificates: [{local: {names: [a.example], dir: ca}}]";
    let client_auth = "client_auth: {mode: request, ca: clients.pem}";
    let asking = format!("{{{local}, policies: [{{names: [a.example], {client_auth}}}]}}");
    let sealing = format!("{{{local}, tickets: {{keys: [ticket.key]}}}}");
    let cases = [
        ("clients.pem", setup().listener("tls", &asking), "is a pipe"),
        ("ticket.key", setup().listener("tls", &sealing), "is a pipe"),
        ("lamina.yaml", setup(), "empty"),
        ("token", setup().top("purge_method", purge), "empty"),
        (
            "part.yaml",
            setup().top("include", "part.yaml"),
            "no regular file",
        ),
        ("site.crt", setup().listener("tls", secured), "is a pipe"),
        ("page.html", setup().route(answers), "is a pipe"),
        (
            "key.wasm",
            setup().top("plugins", "{p: {file: key.wasm}}"),
            "is a pipe",
        ),
    ];
    for (file, broken, says) in cases {
        gateway.write(&broken);
        named_pipe::put(&gateway.dir().join(file));
        let refused = within("an answer", SOON, gateway.reload()).await;
        assert_eq!(refused.status, 422, "{file}: {}", refused.said);
        let told = refused.said.to_string();
        assert!(told.contains(says), "{file}: {told}");
        fs::remove_file(gateway.dir().join(file)).unwrap();
        gateway.write(&setup());
        assert_eq!(gateway.reload().await.status, 200, "{file}");
    }
}

/// A folder as Kubernetes mounts it: each file is a link into `..data`, which is a link to a folder
/// that is replaced as a whole.
fn mounted(dir: &Path, version: &str, text: &str) {
    let folder = dir.join(version);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("lamina.yaml"), text).unwrap();
    let (next, data) = (dir.join("..next"), dir.join("..data"));
    symlink(version, &next).unwrap();
    fs::rename(&next, &data).unwrap();
    let file = dir.join("lamina.yaml");
    if !file.is_symlink() {
        let _ = fs::remove_file(&file);
        symlink("..data/lamina.yaml", file).unwrap();
    }
}

fn plan(gateway: &Gateway, file: &Path) -> e2e::cli::Ran {
    let admin = gateway.admin.to_string();
    run(&["plan", "-c", file.to_str().unwrap(), "--against", &admin])
}

/// What a configuration names is relative to the folder in which the configuration is named, whoever
/// names it: the start, a plan, or a take-over.
#[tokio::test]
async fn a_configuration_behind_links_is_planned_and_taken_over_as_it_is_named() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let site = |name: &str| {
        let server = e2e::upgrade::server("");
        Setup::new(&origin)
            .top("server", &server)
            .top("include", "parts/*.yaml")
            .route(&format!(
                "{{name: {name}, match: {{path: /a/*}}, upstream: origin}}"
            ))
            .file(
                "parts/more.yaml",
                "routes: [{name: more, upstream: origin}]\n",
            )
    };
    let gateway = site("first").start().await;
    let file = gateway.dir().join("lamina.yaml");
    let text = fs::read_to_string(&file).unwrap();
    mounted(gateway.dir(), "..1", &text);
    let same = plan(&gateway, &file);
    assert!(
        same.stdout.contains("Nothing would be different"),
        "{}",
        same.output()
    );
    gateway.upgrade().await;
    mounted(
        gateway.dir(),
        "..2",
        &text.replace("name: first", "name: second"),
    );
    fs::remove_dir_all(gateway.dir().join("..1")).unwrap();
    let taken = gateway.reload().await;
    assert_eq!(taken.status, 200, "{}", taken.said);
    assert_eq!(taken.said["changes"]["routes"]["added"][0], "second");
    assert_eq!(gateway.client().get("/more").await.status, 200);
    // From another folder its paths would lead elsewhere.
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("lamina.yaml");
    symlink(&file, &link).unwrap();
    let refused = plan(&gateway, &link);
    assert_eq!(refused.code, Some(2), "{}", refused.output());
    assert!(
        refused.stderr.contains("must stand in the folder"),
        "{}",
        refused.output()
    );
}
