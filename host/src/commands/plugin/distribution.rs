//! `mortise plugin push|pull|sign|verify|bundle`: between a file, a registry and a bundle.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use secrecy::SecretString;

use crate::cli::{
    OutputFormat, PluginBundleArgs, PluginPullArgs, PluginPushArgs, PluginSignArgs, PluginVerifyArgs, RegistryArgs,
    SourceArgs,
};
use crate::config::Environment;
use crate::error::Failure;
use crate::plugin::{PluginError, inspect_component, interfaces, read_component};
use crate::registry::signature::{self, Form, PublicKey, SigningKey};
use crate::registry::{self, Client, Digest, Layout, Options, Reference, RegistryError, Source};

/// Name of the variable that holds a private key's password, as cosign has it.
const PASSWORD: &str = "COSIGN_PASSWORD";

/// What a command is about.
pub(super) enum Subject {
    /// In a registry or a bundle.
    Reference(Reference),
    /// On this machine.
    File(PathBuf),
}

impl Subject {
    /// A path that exists, or that looks like one and nothing else, is a file.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let like_path = text.starts_with(['/', '.']) || (!text.contains(':') && text.ends_with(".wasm"));
        if like_path || Path::new(text).is_file() {
            return Ok(Self::File(text.into()));
        }
        Ok(Self::Reference(text.parse()?))
    }

    /// Last part of the repository, or the file's name without its ending.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Reference(reference) => reference.name().to_owned(),
            Self::File(path) => path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        }
    }
}

/// The bundle where one is named, else the registry.
pub(super) fn source(reference: &Reference, from: &SourceArgs) -> Result<Source, RegistryError> {
    match &from.bundle {
        Some(path) => Ok(Source::Layout(Layout::open(path)?)),
        None => Ok(Source::Registry(client(reference, &from.registry)?)),
    }
}

fn client(reference: &Reference, registry: &RegistryArgs) -> Result<Client, RegistryError> {
    let options = Options { plain_http: registry.plain_http, ca_file: registry.ca_file.clone(), docker_config: None };
    Client::new(reference, &options)
}

pub(super) async fn push(args: PluginPushArgs) -> Result<(), Failure> {
    let reference: Reference = args.reference.parse()?;
    let component = Bytes::from(read_component(reference.name(), &args.file)?);
    // What this host would not take is not shipped to others.
    let seen = inspect_component(reference.name(), &component)?;
    let names =
        interfaces(&component).map_err(|reason| PluginError::Unfit { plugin: reference.name().to_owned(), reason })?;
    let file = args.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let client = client(&reference, &args.registry)?;
    let version = seen.id.as_ref().map(|_| seen.version.as_str());
    let digest = registry::push(&client, &reference, component, names, version, &file).await?;
    println!("{}", reference.at_digest(&digest));
    Ok(())
}

pub(super) async fn pull(args: PluginPullArgs) -> Result<(), Failure> {
    let reference: Reference = args.reference.parse()?;
    let key = args.key.as_deref().map(PublicKey::read).transpose()?;
    let source = source(&reference, &args.source)?;
    let artifact = registry::find(&source, &reference).await?;
    if let Some(key) = &key {
        signature::verify(&source, &reference, artifact.digest(), key).await?;
    }
    let component = artifact.component(&source, &reference).await?;
    let path = args.output.unwrap_or_else(|| format!("{}.wasm", reference.name()).into());
    write(&path, &component)?;
    println!("{}", reference.at_digest(artifact.digest()));
    eprintln!("component {} is in `{}`", Digest::of(&component), path.display());
    if key.is_none() {
        eprintln!("warning: no signature was checked; with `--key PUB` only what that key signed is taken");
    }
    Ok(())
}

pub(super) async fn sign(args: PluginSignArgs, environment: &Environment) -> Result<(), Failure> {
    let subject = Subject::parse(&args.subject)?;
    let password = SecretString::from(environment.value(PASSWORD).unwrap_or_default().to_owned());
    let key = SigningKey::open(&args.key, &password)?;
    let fingerprint = key.public_key().fingerprint();
    match subject {
        Subject::File(path) => {
            let component = read_component(&args.subject, &path)?;
            let written = signature::sign_file(&path, &component, &key)?;
            println!("{}", written.display());
        }
        Subject::Reference(reference) => {
            let source = Source::Registry(client(&reference, &args.registry)?);
            let artifact = registry::find(&source, &reference).await?;
            if let Source::Registry(client) = &source {
                signature::sign(client, &reference, artifact.subject.clone(), &key).await?;
            }
            println!("{}", reference.at_digest(artifact.digest()));
        }
    }
    eprintln!("signed by {fingerprint}");
    Ok(())
}

pub(super) async fn verify(args: PluginVerifyArgs) -> Result<(), Failure> {
    let key = PublicKey::read(&args.key)?;
    let (name, form) = match Subject::parse(&args.subject)? {
        Subject::File(path) => {
            let component = read_component(&args.subject, &path)?;
            let form = signature::verify_file(&path, &component, &key)?;
            (Digest::of(&component).to_string(), form)
        }
        Subject::Reference(reference) => {
            let source = source(&reference, &args.source)?;
            let artifact = registry::find(&source, &reference).await?;
            let form = signature::verify(&source, &reference, artifact.digest(), &key).await?;
            (reference.at_digest(artifact.digest()).to_string(), form)
        }
    };
    let signer = key.fingerprint();
    match args.output {
        OutputFormat::Json => println!("{}", serde_json::json!({"verified": name, "signer": signer, "form": form})),
        OutputFormat::Text => {
            println!("{name}");
            let form = match form {
                Form::Bundle => "a sigstore bundle",
                Form::Tag => "a signature under its tag",
                Form::File => "a signature in a file",
            };
            eprintln!("signed by {signer}, {form}");
        }
    }
    Ok(())
}

pub(super) async fn bundle(args: PluginBundleArgs) -> Result<(), Failure> {
    let mut plugins = Vec::new();
    for text in &args.references {
        let reference: Reference = text.parse()?;
        let client = client(&reference, &args.registry)?;
        plugins.push((reference, Source::Registry(client)));
    }
    registry::bundle(&plugins, &args.output).await?;
    println!("{}", args.output.display());
    Ok(())
}

/// A file that appears whole.
fn write(path: &Path, content: &[u8]) -> Result<(), RegistryError> {
    let cannot = |source| RegistryError::File { what: "write", path: path.to_owned(), source };
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".mortise-").tempfile_in(directory).map_err(cannot)?;
    file.write_all(content).map_err(cannot)?;
    file.as_file().sync_all().map_err(cannot)?;
    file.persist(path).map_err(|error| cannot(error.error))?;
    Ok(())
}
