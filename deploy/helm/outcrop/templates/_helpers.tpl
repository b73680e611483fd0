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

{{/* The router, where there is one: HAProxy before the pods. */}}
{{- define "outcrop.routerName" -}}
{{- printf "%s-router" (include "outcrop.fullname" . | trunc 56 | trimSuffix "-") -}}
{{- end -}}

{{/* Names every ready pod's address; HAProxy asks for it. */}}
{{- define "outcrop.podsName" -}}
{{- printf "%s-pods" (include "outcrop.fullname" . | trunc 58 | trimSuffix "-") -}}
{{- end -}}

{{- define "outcrop.routerSelectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-router
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Not those of the pods, whose Service and metrics are found by them. */}}
{{- define "outcrop.routerLabels" -}}
{{ include "outcrop.routerSelectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "outcrop.routerImage" -}}
{{- with .Values.router.image -}}
{{- if .digest -}}{{ printf "%s@%s" .repository .digest }}{{- else -}}{{ printf "%s:%s" .repository .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Who may call, as peers of a NetworkPolicy. */}}
{{- define "outcrop.callers" -}}
{{- with .Values.networkPolicy.from -}}
{{- toYaml . -}}
{{- else -}}
- podSelector: {}
{{- end -}}
{{- end -}}

{{- define "outcrop.toDns" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end -}}

{{/* haproxy.cfg. Path, Host, headers and body pass as they were sent, so that signatures hold. */}}
{{- define "outcrop.routerConfig" -}}
global
  log stdout format raw local0 notice
  fd-hard-limit 50000
  hard-stop-after {{ .Values.drain.seconds }}s

defaults
  mode http
  log global
  option httplog
  option dontlog-normal
  timeout connect 2s
  timeout http-request 30s
  timeout http-keep-alive 300s
  # A long prompt's first token takes a while.
  timeout client 600s
  timeout server 600s
  retries 2
  option redispatch 1

# The last answer stands while DNS is away: health checks say who is there.
resolvers cluster
  parse-resolv-conf
  accepted_payload_size 8192
  hold valid 5s
  hold timeout 1h
  hold refused 1h
  hold other 1h

frontend calls
  bind :8080
  monitor-uri /router/ready
  monitor fail if { nbsrv(pods) lt 1 }
  # By its session, or else by how it begins, which a conversation's later requests have in common.
  http-request wait-for-body time 10s at-least {{ .Values.router.affinityBytes }} if METH_POST
  http-request set-var(txn.affinity) req.body,bytes(0,{{ .Values.router.affinityBytes }})
  http-request set-var(txn.affinity) req.hdr(x-outcrop-session) if { req.hdr(x-outcrop-session) -m found }
  http-error status 503 content-type application/json string '{"message":"No server is ready."}' hdr x-amzn-errortype ServiceUnavailableException
  default_backend pods

backend pods
  balance hash var(txn.affinity)
  hash-type consistent
  hash-balance-factor {{ .Values.router.balanceFactor }}
  option httpchk GET /health/ready
  http-check expect status 200
  default-server check inter 2s fastinter 500ms fall 2 rise 1
  # hash-key addr: all routers choose the same pod, in whatever order DNS names them.
  server-template pod 1-{{ .Values.router.maxPods }} {{ include "outcrop.podsName" . }}.{{ .Release.Namespace }}.svc.{{ .Values.router.clusterDomain }}:8080 resolvers cluster resolve-prefer ipv4 resolve-opts prevent-dup-ip init-addr none hash-key addr
{{- end -}}
