{{- /* The name of the objects. */ -}}
{{- define "dispatcher.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- /* Short enough for the suffixes. */ -}}
{{- .Values.fullnameOverride | default $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "dispatcher.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "dispatcher.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: required if serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "dispatcher.leaseNamespace" -}}
{{- .Values.lease.namespace | default .Values.jobs.namespace.name -}}
{{- end -}}

{{- define "dispatcher.selector" -}}
app.kubernetes.io/name: {{ include "dispatcher.fullname" . | toYaml }}
{{- end -}}

{{- /* The labels and annotations of an object; `root` is the context of the chart. */ -}}
{{- define "dispatcher.metadata" -}}
{{- with merge dict (.labels | default dict) .root.Values.commonLabels -}}
labels:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with merge dict (.annotations | default dict) .root.Values.commonAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- end -}}

{{- /* The text of a setting. Helm parses every number as a float, and prints 1e+06. */ -}}
{{- define "dispatcher.text" -}}
{{- if kindIs "float64" . }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end -}}
{{- end -}}

{{- /* The settings of the ConfigMap of limits. A limit without a value is absent. */ -}}
{{- define "dispatcher.limits" -}}
{{- $limits := .Values.limits -}}
{{- if not (kindIs "invalid" $limits.allowedImages) }}
# The images of containers and image volumes, separated by commas. A trailing `*` after `/`, `:`
# or `@` is a wildcard. Without this line, any image is allowed.
DISPATCHER_ALLOWED_IMAGES: {{ join "," $limits.allowedImages | toYaml }}
{{- end }}
{{- if not (kindIs "invalid" $limits.allowedServiceAccounts) }}
# Without this line, any ServiceAccount of the namespace is allowed.
DISPATCHER_ALLOWED_SERVICE_ACCOUNTS: {{ join "," $limits.allowedServiceAccounts | toYaml }}
{{- end }}
# The CSI drivers of inline volumes. Without this line, or empty: none.
DISPATCHER_ALLOWED_CSI_DRIVERS: {{ join "," $limits.allowedCSIDrivers | toYaml }}
{{- if not (kindIs "invalid" $limits.defaultActiveDeadlineSeconds) }}
# For Jobs whose template sets no `activeDeadlineSeconds`.
DISPATCHER_DEFAULT_ACTIVE_DEADLINE_SECONDS: {{ include "dispatcher.text" $limits.defaultActiveDeadlineSeconds | toYaml }}
{{- end }}
{{- end -}}

{{- /* The files of the templates by name. */ -}}
{{- define "dispatcher.templates" -}}
{{- $files := dict -}}
{{- if .Values.shippedTemplates -}}
{{- range $path, $_ := .Files.Glob "files/templates/*" }}{{ $_ := set $files (base $path) ($.Files.Get $path) }}{{ end -}}
{{- end -}}
{{- range $name, $document := .Values.templates -}}
{{- $_ := set $files $name (kindIs "string" $document | ternary $document (toYaml $document)) -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{- /* The ports of nats.url. */ -}}
{{- define "dispatcher.natsPorts" -}}
{{- $ports := list -}}
{{- range splitList "," .Values.nats.url -}}
{{- $url := trim . -}}
{{- $port := regexFind ":[0-9]+/?$" $url | trimPrefix ":" | trimSuffix "/" -}}
{{- $default := hasPrefix "wss://" $url | ternary "443" (hasPrefix "ws://" $url | ternary "80" "4222") -}}
{{- $ports = append $ports ($port | default $default) -}}
{{- end -}}
{{- join "," (uniq $ports) -}}
{{- end -}}

{{- /* Combinations that the schema cannot refuse. */ -}}
{{- define "dispatcher.validate" -}}
{{- $nats := .Values.nats -}}
{{- if eq .Values.jobs.namespace.name .Release.Namespace -}}
{{- fail (printf "jobs.namespace.name: %q is the namespace of the release; the Jobs need a namespace of their own" .Release.Namespace) -}}
{{- end -}}
{{- range $key := list "creds" "nkey" "password" "token" -}}
{{- if and (get $nats.credentials $key) (not $nats.credentials.secret) -}}
{{- fail (printf "nats.credentials.secret: required with nats.credentials.%s" $key) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "ca" "cert" "key" -}}
{{- if and (get $nats.tls $key) (not $nats.tls.secret) (not $nats.credentials.secret) -}}
{{- fail (printf "nats.tls.secret: required with nats.tls.%s" $key) -}}
{{- end -}}
{{- end -}}
{{- if ne (empty $nats.tls.cert) (empty $nats.tls.key) -}}
{{- fail "nats.tls.cert and nats.tls.key: set both or none" -}}
{{- end -}}
{{- if ne (empty $nats.user) (empty $nats.credentials.password) -}}
{{- fail "nats.user and nats.credentials.password: set both or none" -}}
{{- end -}}
{{- $accounts := .Values.limits.allowedServiceAccounts -}}
{{- $job := .Values.jobs.serviceAccount -}}
{{- if and $job.create (not (kindIs "invalid" $accounts)) (not (has $job.name (default list $accounts))) -}}
{{- fail (printf "limits.allowedServiceAccounts: does not contain %q of jobs.serviceAccount.name" $job.name) -}}
{{- end -}}
{{- if ne (empty .Values.submitterKey.secret) (empty .Values.submitterKey.key) -}}
{{- fail "submitterKey.secret and submitterKey.key: set both or none" -}}
{{- end -}}
{{- if ne (empty .Values.consoleToken.secret) (empty .Values.consoleToken.key) -}}
{{- fail "consoleToken.secret and consoleToken.key: set both or none" -}}
{{- end -}}
{{- end -}}

{{- /* Binds the Role `name` in `namespace` to the ServiceAccount of the dispatcher. */ -}}
{{- define "dispatcher.roleBinding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name | toYaml }}
  namespace: {{ .namespace | toYaml }}
  {{- with include "dispatcher.metadata" (dict "root" .root) | trim }}{{ . | nindent 2 }}{{ end }}
subjects:
  - kind: ServiceAccount
    name: {{ include "dispatcher.serviceAccount" .root | toYaml }}
    namespace: {{ .root.Release.Namespace | toYaml }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name | toYaml }}
{{- end -}}
