{{- /* The parts of a pod that the Deployment and the pod of `helm test` share. */ -}}

{{- define "dispatcher.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "dispatcher.runArguments" -}}
run{{ if not .Values.nats.provision }}, --no-provision{{ end }}
{{- end -}}

{{- /* The folder of the TLS files, which can be in the Secret of the credentials. */ -}}
{{- define "dispatcher.tlsFolder" -}}
{{- $nats := .Values.nats -}}
{{- if and $nats.tls.secret (ne $nats.tls.secret $nats.credentials.secret) -}}
/etc/dispatcher/nats-tls
{{- else -}}
/etc/dispatcher/nats
{{- end -}}
{{- end -}}

{{- define "dispatcher.podSettings" -}}
serviceAccountName: {{ include "dispatcher.serviceAccount" . | toYaml }}
# Longer than a graceful stop (35 s at most), which finishes the requests in flight.
terminationGracePeriodSeconds: 45
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  {{- if or .Values.nats.credentials.secret .Values.nats.tls.secret .Values.submitterKey.secret .Values.consoleToken.secret }}
  # This group may read the files of the Secrets.
  fsGroup: 65532
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- range $field := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "priorityClassName" "hostAliases" }}
{{- with get $.Values $field }}
{{ $field }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "dispatcher.container" -}}
{{- $nats := .Values.nats -}}
image: {{ include "dispatcher.image" . | toYaml }}
imagePullPolicy: {{ .Values.image.pullPolicy | toYaml }}
env:
  - name: NATS_URL
    value: {{ $nats.url | toYaml }}
  - name: DISPATCHER_NAMESPACE
    value: {{ .Values.jobs.namespace.name | toYaml }}
  # The holder's name in the Lease: a restarted container of this pod leads again
  # immediately.
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  - name: DISPATCHER_TEMPLATES
    value: /etc/dispatcher/templates
  {{- if .Values.jobTemplates.enabled }}
  # JobTemplate objects are templates too.
  - name: DISPATCHER_JOB_TEMPLATES
    value: "true"
  {{- end }}
  {{- if .Values.kueue.enabled }}
  - name: DISPATCHER_KUEUE
    value: "true"
  {{- end }}
  {{- if ne .Values.lease.name "dispatcher" }}
  - name: DISPATCHER_LEASE_NAME
    value: {{ .Values.lease.name | toYaml }}
  {{- end }}
  {{- with .Values.lease.namespace }}
  - name: DISPATCHER_LEASE_NAMESPACE
    value: {{ . | toYaml }}
  {{- end }}
  {{- range $name, $value := .Values.settings }}
  - name: {{ $name }}
    value: {{ include "dispatcher.text" $value | toYaml }}
  {{- end }}
  {{- with $nats.user }}
  - name: NATS_USER
    value: {{ . | toYaml }}
  {{- end }}
  {{- range $variable, $key := dict "NATS_CREDS" $nats.credentials.creds "NATS_NKEY" $nats.credentials.nkey "NATS_PASSWORD_FILE" $nats.credentials.password "NATS_TOKEN_FILE" $nats.credentials.token }}
  {{- with $key }}
  - name: {{ $variable }}
    value: {{ printf "/etc/dispatcher/nats/%s" . | toYaml }}
  {{- end }}
  {{- end }}
  {{- range $variable, $key := dict "NATS_CA" $nats.tls.ca "NATS_CERT" $nats.tls.cert "NATS_KEY" $nats.tls.key }}
  {{- with $key }}
  - name: {{ $variable }}
    value: {{ printf "%s/%s" (include "dispatcher.tlsFolder" $) . | toYaml }}
  {{- end }}
  {{- end }}
  {{- with .Values.submitterKey.key }}
  - name: DISPATCHER_SUBMITTER_KEY
    value: {{ printf "/etc/dispatcher/submitter/%s" . | toYaml }}
  {{- end }}
  {{- with .Values.consoleToken.key }}
  - name: DISPATCHER_CONSOLE_TOKEN_FILE
    value: {{ printf "/etc/dispatcher/console/%s" . | toYaml }}
  {{- end }}
  {{- with .Values.extraEnv }}{{ toYaml . | nindent 2 }}{{ end }}
envFrom:
  - configMapRef:
      name: {{ include "dispatcher.fullname" . }}-limits
  {{- with .Values.extraEnvFrom }}{{ toYaml . | nindent 2 }}{{ end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: templates
    mountPath: /etc/dispatcher/templates
    readOnly: true
  {{- if $nats.credentials.secret }}
  - name: nats
    mountPath: /etc/dispatcher/nats
    readOnly: true
  {{- end }}
  {{- if and $nats.tls.secret (ne $nats.tls.secret $nats.credentials.secret) }}
  - name: nats-tls
    mountPath: /etc/dispatcher/nats-tls
    readOnly: true
  {{- end }}
  {{- if .Values.submitterKey.secret }}
  - name: submitter
    mountPath: /etc/dispatcher/submitter
    readOnly: true
  {{- end }}
  {{- if .Values.consoleToken.secret }}
  - name: console
    mountPath: /etc/dispatcher/console
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}

{{- define "dispatcher.volumes" -}}
{{- $nats := .Values.nats -}}
- name: templates
  configMap:
    name: {{ include "dispatcher.fullname" . }}-templates
{{- if $nats.credentials.secret }}
- name: nats
  secret:
    secretName: {{ $nats.credentials.secret | toYaml }}
    defaultMode: 288 # 0440
{{- end }}
{{- if and $nats.tls.secret (ne $nats.tls.secret $nats.credentials.secret) }}
- name: nats-tls
  secret:
    secretName: {{ $nats.tls.secret | toYaml }}
    defaultMode: 288 # 0440
{{- end }}
{{- if .Values.submitterKey.secret }}
- name: submitter
  secret:
    secretName: {{ .Values.submitterKey.secret | toYaml }}
    defaultMode: 288 # 0440
{{- end }}
{{- if .Values.consoleToken.secret }}
- name: console
  secret:
    secretName: {{ .Values.consoleToken.secret | toYaml }}
    defaultMode: 288 # 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
