//! The settings of `dispatcher dev`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;

use crate::cli::Templates;

/// How everything on this machine is set. A port 0 is any that is free.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Port of NATS on 127.0.0.1; 0 for a free one.
    #[arg(long, default_value_t = 4222)]
    pub nats_port: u16,

    /// Port of the local cluster's API, plain HTTP on 127.0.0.1; 0 for a free one.
    #[arg(long, default_value_t = 8001)]
    pub api_port: u16,

    /// Port of the dispatcher's `/livez` and `/readyz` on 127.0.0.1; 0 for a free one.
    #[arg(long, default_value_t = 0)]
    pub admin_port: u16,

    /// Keep nothing: JetStream gets a folder that is removed at the end.
    #[arg(long)]
    pub temporary: bool,

    /// Times this factor the waits between the attempts of a Job: 0.01 makes 0.1 s of 10 s.
    #[arg(long, default_value_t = 1.0, value_parser = factor)]
    pub time_scale: f64,

    /// Seconds that the shipped simple-job sleeps; its templates say more, for clusters.
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub sleep_seconds: Duration,

    /// Seconds until a dispatcher that has died is started again; twice as long at each further death.
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub restart_delay: Duration,

    /// A program of this machine for an image that templates name; may be given again.
    #[arg(long = "image", value_name = "NAME=PROGRAM")]
    pub images: Vec<Image>,

    /// The templates.
    #[command(flatten)]
    pub templates: Templates,
}

/// What runs for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image's name with its tag, as templates say it.
    pub name: String,
    /// The program.
    pub program: PathBuf,
}

impl FromStr for Image {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, program)) if !name.is_empty() && !program.is_empty() => {
                Ok(Self { name: name.to_owned(), program: program.into() })
            }
            _ => Err("must be NAME=PROGRAM, as in worker:1.2=./target/debug/worker".to_owned()),
        }
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    (number.is_finite() && number >= 0.0).then_some(number).ok_or_else(|| "must be 0 or more".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    factor(text).and_then(|number| Duration::try_from_secs_f64(number).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(args: &[&str]) -> Result<Settings, String> {
        let cli = Cli::try_parse_from([&["dispatcher", "dev"], args].concat()).map_err(|e| e.to_string())?;
        let Command::Dev(settings) = cli.command else { panic!("dev") };
        Ok(*settings)
    }

    #[test]
    fn without_flags_it_is_as_documented() {
        let settings = parsed(&[]).unwrap();
        assert_eq!((settings.nats_port, settings.api_port, settings.admin_port), (4222, 8001, 0));
        assert_eq!((settings.temporary, settings.time_scale), (false, 1.0));
        assert_eq!(settings.sleep_seconds, Duration::from_secs(1));
    }

    #[test]
    fn images_are_named_with_their_programs() {
        let settings = parsed(&["--image", "a:1=/bin/a", "--image", "registry:5000/b@sha256:0=b=c"]).unwrap();
        let image = |name: &str, program: &str| Image { name: name.to_owned(), program: program.into() };
        assert_eq!(settings.images, [image("a:1", "/bin/a"), image("registry:5000/b@sha256:0", "b=c")]);
        for wrong in ["a", "=b", "a="] {
            assert!(parsed(&["--image", wrong]).unwrap_err().contains("NAME=PROGRAM"), "{wrong}");
        }
    }

    #[test]
    fn a_factor_is_no_negative_number() {
        assert!(parsed(&["--time-scale", "0"]).is_ok());
        for wrong in ["-1", "NaN", "inf", "x"] {
            assert!(parsed(&[&format!("--time-scale={wrong}")]).is_err(), "{wrong}");
            assert!(parsed(&[&format!("--sleep-seconds={wrong}")]).is_err(), "{wrong}");
        }
    }
}
