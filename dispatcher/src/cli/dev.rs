//! The settings of `dispatcher dev`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;

use crate::cli::{console::ConsoleMode, templates::Templates};

/// The settings of `dispatcher dev`.
#[derive(Debug, Clone, Args)]
pub struct DevSettings {
    /// Port of NATS on 127.0.0.1; 0 for any free port.
    #[arg(long, value_name = "PORT", default_value_t = 4222)]
    pub nats_port: u16,

    /// Port of the local cluster's API (plain HTTP) on 127.0.0.1; 0 for any free port.
    #[arg(long, value_name = "PORT", default_value_t = 8001)]
    pub api_port: u16,

    /// Port of the dispatcher's `/readyz` and `/metrics` on 127.0.0.1; 0 for any free port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub admin_port: u16,

    /// What the console can do. `write` generates a token, and prints the address that contains it.
    #[arg(long, value_name = "MODE", value_enum, default_value_t = ConsoleMode::Read)]
    pub console: ConsoleMode,

    /// Keep no streams: `JetStream` uses a directory that is removed at the end. Default: off.
    #[arg(long)]
    pub temporary: bool,

    /// Factor for the delays between the attempts of a Job: 0.01 turns 10 s into 0.1 s.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    pub time_scale: f64,

    /// How long the shipped simple-job sleeps, in seconds, instead of what its templates set.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub sleep_seconds: Duration,

    /// Delay before a crashed dispatcher or NATS is restarted, in seconds. It doubles with each
    /// further crash.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub restart_delay: Duration,

    /// Program that runs for an image of a template; repeat the flag for more images. Default:
    /// simple-job only.
    #[arg(long = "image", value_name = "NAME=PROGRAM")]
    pub images: Vec<Image>,

    /// The templates.
    #[command(flatten)]
    pub templates: Templates,
}

/// The program that runs for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image's name with its tag, as in the templates.
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
            _ => Err("expected NAME=PROGRAM, such as worker:1.2=./target/debug/worker".to_owned()),
        }
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err("expected a number of 0 or more".to_owned())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    factor(text).and_then(|number| Duration::try_from_secs_f64(number).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(args: &[&str]) -> Result<DevSettings, String> {
        let cli = Cli::try_parse_from([&["dispatcher", "dev"], args].concat()).map_err(|e| e.to_string())?;
        let Command::Dev(settings) = cli.command else { panic!("dev") };
        Ok(*settings)
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let settings = parse(&[]).unwrap();
        assert_eq!((settings.nats_port, settings.api_port, settings.admin_port), (4222, 8001, 0));
        assert_eq!((settings.temporary, settings.time_scale), (false, 1.0));
        assert_eq!(settings.console, ConsoleMode::Read);
        assert_eq!(settings.sleep_seconds, Duration::from_secs(1));
    }

    #[test]
    fn image_flag_takes_a_name_and_a_program() {
        let settings = parse(&["--image", "a:1=/bin/a", "--image", "registry:5000/b@sha256:0=b=c"]).unwrap();
        let image = |name: &str, program: &str| Image { name: name.to_owned(), program: program.into() };
        assert_eq!(settings.images, [image("a:1", "/bin/a"), image("registry:5000/b@sha256:0", "b=c")]);
        for wrong in ["a", "=b", "a="] {
            assert!(parse(&["--image", wrong]).unwrap_err().contains("NAME=PROGRAM"), "{wrong}");
        }
    }

    #[test]
    fn factors_and_seconds_are_finite_and_not_negative() {
        assert!(parse(&["--time-scale", "0"]).is_ok());
        for wrong in ["-1", "NaN", "inf", "x"] {
            assert!(parse(&[&format!("--time-scale={wrong}")]).is_err(), "{wrong}");
            assert!(parse(&[&format!("--sleep-seconds={wrong}")]).is_err(), "{wrong}");
        }
    }
}
