//! The settings of templates, which several subcommands share.

use std::{num::NonZeroU32, path::PathBuf};

use clap::{Args, builder::BoolishValueParser};
use dispatcher_core::template::ImagePattern;

use crate::cli::values::number;

/// The operator's limits on the Jobs of all templates.
#[derive(Debug, Clone, Default, Args)]
pub struct Limits {
    /// Images that containers and image volumes may use, separated by commas. A trailing `*` after `/`, `:` or `@`
    /// is a wildcard: `registry.example.org/team/*`. Default: any image.
    #[arg(
        id = "allowed_images",
        long = "allowed-images",
        env = "DISPATCHER_ALLOWED_IMAGES",
        value_name = "IMAGES",
        value_delimiter = ','
    )]
    pub images: Option<Vec<ImagePattern>>,

    /// `ServiceAccounts` that Jobs may use, separated by commas. Default: any of the namespace.
    #[arg(
        id = "allowed_service_accounts",
        long = "allowed-service-accounts",
        env = "DISPATCHER_ALLOWED_SERVICE_ACCOUNTS",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub service_accounts: Option<Vec<String>>,

    /// CSI drivers that inline volumes may use, separated by commas. A driver runs with the rights of
    /// the node. Default: none.
    #[arg(
        id = "allowed_csi_drivers",
        long = "allowed-csi-drivers",
        env = "DISPATCHER_ALLOWED_CSI_DRIVERS",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub csi_drivers: Vec<String>,

    /// `activeDeadlineSeconds`, in seconds, of Jobs whose template sets none. It ends Jobs whose
    /// pods never start. Default: none.
    #[arg(
        id = "default_active_deadline_seconds",
        long = "default-active-deadline-seconds",
        env = "DISPATCHER_DEFAULT_ACTIVE_DEADLINE_SECONDS",
        value_name = "SECONDS",
        value_parser = number(NonZeroU32::MIN..=NonZeroU32::MAX)
    )]
    pub active_deadline_seconds: Option<NonZeroU32>,
}

/// Where the templates are.
#[derive(Debug, Clone, Args)]
pub struct Templates {
    /// Directory of the templates, one YAML file each.
    #[arg(
        long = "templates",
        env = "DISPATCHER_TEMPLATES",
        value_name = "DIRECTORY",
        default_value = "deploy/templates"
    )]
    pub folder: PathBuf,
}

/// Whether templates can be objects.
#[derive(Debug, Clone, Args)]
pub struct TemplateObjects {
    /// Use the `JobTemplate` objects of the Jobs' namespace as templates, in addition to the files.
    /// The directory of files may then be missing or empty. Default: off.
    #[arg(
        long = "job-templates",
        env = "DISPATCHER_JOB_TEMPLATES",
        value_name = "BOOLEAN",
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub job_templates: bool,
}
