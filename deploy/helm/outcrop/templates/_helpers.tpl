{{- define "outcrop.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "outcrop.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "outcrop.labels" -}}
{{ include "outcrop.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "outcrop.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "outcrop.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "outcrop.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Neuron devices of an instance type: two NeuronCores each. */}}
{{- define "outcrop.devicesOf" -}}
{{- $devices := dict "inf2.xlarge" 1 "inf2.8xlarge" 1 "inf2.24xlarge" 6 "inf2.48xlarge" 12 "trn1.2xlarge" 1 "trn1.32xlarge" 16 "trn1n.32xlarge" 16 -}}
{{- if not (hasKey $devices .) -}}
{{- fail (printf "instance %s: not one of %s" . (keys $devices | sortAlpha | join ", ")) -}}
{{- end -}}
{{- get $devices . -}}
{{- end -}}

{{- define "outcrop.instances" -}}
{{- prepend .Values.instance.alternatives .Values.instance.type | toJson -}}
{{- end -}}

{{/* Neuron devices that a pod needs; fails where an instance does not have them. */}}
{{- define "outcrop.devices" -}}
{{- $cores := mul (int .Values.tensorParallel) (int .Values.replicasPerPod) -}}
{{- $devices := div (add $cores 1) 2 -}}
{{- range include "outcrop.instances" . | fromJsonArray -}}
{{- $has := include "outcrop.devicesOf" . | int -}}
{{- if gt (int $devices) $has -}}
{{- fail (printf "tensorParallel × replicasPerPod are %d NeuronCores, which is %d devices, and %s has %d" (int $cores) (int $devices) . $has) -}}
{{- end -}}
{{- if and (hasPrefix "trn1" .) (not (has (int $devices) (list 1 4 8 16))) -}}
{{- fail (printf "a pod would need %d devices: of %s only 1, 4, 8 or 16 can be had together" (int $devices) .) -}}
{{- end -}}
{{- end -}}
{{- $devices -}}
{{- end -}}

{{/* Set where a pod must have neighbouring devices and does not have the instance to itself. */}}
{{- define "outcrop.needsScheduler" -}}
{{- $devices := include "outcrop.devices" . | int -}}
{{- range include "outcrop.instances" . | fromJsonArray -}}
{{- if and (gt $devices 1) (lt $devices (include "outcrop.devicesOf" . | int)) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "outcrop.artifactFolder" -}}
/artifacts/{{ trunc 12 .Values.model.artifact.key }}
{{- end -}}

{{/* Set where keys are in a file; those of servers that share a database are there. */}}
{{- define "outcrop.keysFromSecret" -}}
{{- if and .Values.auth.existingSecret (not .Values.state.existingSecret) -}}true{{- end -}}
{{- end -}}

{{/* outcrop.toml. What is the chart's business goes before `server` and `model.settings`. */}}
{{- define "outcrop.config" -}}
{{- $model := dict "backend" .Values.backend -}}
{{- with .Values.model.id }}{{ $_ := set $model "id" . }}{{ end -}}
{{- with .Values.model.aliases }}{{ $_ := set $model "aliases" . }}{{ end -}}
{{- if eq .Values.backend "neuron" -}}
{{- $_ := set $model "artifact" (include "outcrop.artifactFolder" .) -}}
{{- else -}}
{{- $_ := set $model "path" (required "model.path: backend cpu needs a checkpoint" .Values.model.path) -}}
{{- end -}}
{{- if gt (int .Values.replicasPerPod) 1 }}{{ $_ := set $model "replicas" (int .Values.replicasPerPod) }}{{ end -}}
{{- $model = merge $model .Values.model.settings -}}
{{- $telemetry := merge (dict) (default (dict) .Values.server.telemetry) (dict "log_format" "json") -}}
{{- $config := dict "host" "0.0.0.0" "port" 8080 "drain_seconds" (int .Values.drain.seconds) "notice_seconds" (int .Values.drain.noticeSeconds) "models" (list $model) "telemetry" $telemetry -}}
{{- if include "outcrop.keysFromSecret" . -}}
{{- $_ := set $config "auth" (merge (dict "keys" "/etc/outcrop/keys/keys.json") (default (dict) .Values.server.auth)) -}}
{{- end -}}
{{- merge $config .Values.server | toToml -}}
{{- end -}}

{{- define "outcrop.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "outcrop.meta" -}}
name: {{ include "outcrop.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "outcrop.labels" . | nindent 2 }}
{{- end -}}
