# Words of the console.

ui-outcome = Resultado
ui-probability = Probabilidad
ui-expected-loss = Pérdida esperada
ui-reasons = Motivos por tema
ui-without = sin este tema: { $share }
ui-nothing-telling = nada que distinga el fraude de los pagos legítimos
ui-on-its-way = La explicación está en camino.
ui-reasons-hint = Los puntos son log-odds: el rojo habla a favor de que sea fraude y el azul, en contra. «Sin este tema» es la probabilidad que habría si el tema no dijera nada. Los porcentajes se refieren a los pagos con los que se entrenó el modelo.
ui-habits = Hábitos frente a este pago
ui-usual = Habitual
ui-this-payment = Este pago
ui-amount = Importe
ui-time = Hora (UTC)
ui-channel = Canal
ui-category = Categoría
ui-place = Lugar
ui-device = Dispositivo
ui-merchant = Este comercio
ui-habit-amount = la mitad hasta { $median }, el 95 % hasta { $high }
ui-higher-than = { $amount }: más alto que el { $rank }
ui-no-amount = ningún pago anterior en esta moneda
ui-habit-hours = 0–6 h { $a }, 6–12 h { $b }, 12–18 h { $c }, 18–24 h { $d }
ui-habit-online = { $share } por internet
ui-habit-home = { $share } a { $near } o menos de la zona habitual
ui-from-home = a { $distance } de allí
ui-device-used = usado { $payments ->
    [one] una vez, el { $first }
   *[other] { $payments } veces entre el { $first } y el { $last }
 }
ui-more-devices = { $n } más
ui-device-new = esta tarjeta no lo había usado antes
ui-device-shared = usado por { $cards ->
    [one] otra tarjeta
   *[other] otras { $cards } tarjetas
 }
ui-merchant-history = { $payments ->
    [one] 1 pago
   *[other] { $payments } pagos
 } de { $cards ->
    [one] 1 tarjeta
   *[other] { $cards } tarjetas
 }; { $frauds ->
    [0] ningún fraude notificado
    [one] 1 fraude notificado
   *[other] { $frauds } fraudes notificados con { $cards_with_fraud ->
        [one] 1 tarjeta
       *[other] { $cards_with_fraud } tarjetas
     }
 }
ui-here-before = { $payments ->
    [one] 1 pago anterior
   *[other] { $payments } pagos anteriores
 } de esta tarjeta
ui-here-largest = { $payments ->
    [one] 1 pago anterior
   *[other] { $payments } pagos anteriores
 } de esta tarjeta, { $largest } como máximo
ui-here-new = ningún pago anterior de esta tarjeta
ui-payments-in-days = { $payments ->
    [one] 1 pago
   *[other] { $payments } pagos
 } en { $days ->
    [one] 1 día
   *[other] { $days } días
 }
ui-archive-behind = El archivo aún no contiene este pago: aquí pueden faltar algunos pagos.
ui-archive-missing = El archivo no está o no responde: no se pueden mostrar hábitos, nombres de comercios ni dispositivos.
ui-no-payments = El archivo no contiene ningún pago anterior de esta tarjeta.
ui-last-payments = Últimos pagos de esta tarjeta
ui-before = Antes
ui-from-home-heading = Desde la zona habitual
ui-known = conocido
ui-new = nuevo
ui-another = otro
ui-no-recent = No se conoce ningún pago anterior de esta tarjeta.
ui-verdict = Dictamen
ui-typology-if-fraud = tipo, si es fraude
ui-note = Nota
ui-in-words = En palabras
ui-written-by = Redactado por { $names }. Cada frase se compone de hechos comprobados; { $replaced ->
    [one] se rechazó 1
   *[other] se rechazaron { $replaced }
 } de { $checked ->
    [one] 1 frase propuesta
   *[other] { $checked } frases propuestas
 }.
ui-why = Por qué
ui-cases = Casos similares cerrados
ui-no-cases = No se cerró ningún caso similar antes de esta alerta.
ui-closed = cerrado el { $when }
ui-shared = también { $themes }
ui-no-difference = ninguna diferencia marcada
ui-investigation = Investigación
ui-investigate-hint = El asistente lee los pagos y las alertas de esta tarjeta y de este comercio, y los casos similares, con herramientas de solo lectura. Presenta hechos comprobados; no decide nada.
ui-under-way = En curso desde el { $when } UTC …
ui-broken-down = La investigación que inició { $by } el { $when } UTC falló: consulte el registro de la consola.
ui-nothing-passed = Ninguna de sus frases superó la comprobación.
ui-transcript = Transcripción
ui-others = Otras alertas de esta tarjeta, este dispositivo y este comercio
ui-same-card = misma tarjeta
ui-same-device = mismo dispositivo
ui-same-merchant = mismo comercio
ui-open = abierta
ui-none = Nada que mostrar.
ui-facts = Todos los hechos
ui-decline = rechazado
ui-review = revisión
ui-approve = aprobado
ui-finding-fraud = fraude
ui-finding-legitimate = legítimo
ui-finding-escalate = escalar
ui-merchant-column = Comercio
ui-card = Tarjeta
ui-previous = anterior
ui-next = siguiente
ui-empty-queue = Ninguna alerta coincide. Las nuevas aparecen aquí automáticamente.
ui-score-picture = Contribuciones a la puntuación en log-odds
ui-amounts-picture = Importes de los últimos pagos de la tarjeta en { $currency }, según el tiempo transcurrido hasta este
ui-this = este pago
ui-before-this = { $ago } antes
ui-honest = legítimos
ui-frauds = fraudes
ui-points = puntos
ui-rarity-hint = Proporción de los pagos legítimos y de los fraudes de los datos de entrenamiento que tienen un valor al menos igual de extremo
ui-higher-than-all = { $amount }: más alto que todos

## El marco de todas las páginas

ui-nav-queue = Cola
ui-nav-lists = Listas
ui-nav-leads = Supervisión
ui-nav-audit = Registro de auditoría
ui-nav-users = Usuarios
ui-nav-webhooks = Webhooks
ui-navigation = Páginas
ui-skip = Ir al contenido
ui-request-failed = La solicitud ha fallado
ui-back-to-queue = Volver a la cola
ui-close = Cerrar
ui-action = Acción
ui-state = Estado
ui-error = Error
ui-number = N.º
ui-reason = Motivo
ui-value = Valor
ui-kind = Tipo
ui-show = Mostrar
ui-change = Cambiar
ui-remove = Eliminar
ui-days = Válido durante (días)
ui-label = Nombre
ui-address = Dirección
ui-subject = Objeto
ui-detail = Detalle
ui-result = Resultado
ui-alert = Alerta
ui-alerts = Alertas
ui-undo = Deshacer

## Teclas

ui-help-title = Atajos de teclado
ui-help-move = bajar y subir por la cola
ui-help-open = abrir la alerta marcada
ui-help-pages = página anterior y siguiente
ui-help-next = asignarse y abrir la siguiente alerta
ui-help-search = buscar
ui-help-queue = volver a la cola
ui-help-verdict = emitir un dictamen: fraude, legítimo o escalar
ui-help-fields = elegir el tipo de fraude o el motivo de cierre, escribir una nota
ui-help-undo = deshacer el último dictamen
ui-help-claim = asignarse o liberar la alerta, elegir cuánto tiempo posponerla
ui-help-escape = salir de un campo
ui-help-help = mostrar estos atajos

## Acceso

ui-sign-in = Iniciar sesión
ui-sign-in-provider = Iniciar sesión con la cuenta de su organización
ui-sign-out = Cerrar sesión
ui-sign-out-everywhere = Cerrar sesión en todos los dispositivos
ui-user-name = Nombre de usuario
ui-password = Contraseña
ui-new-password = Nueva contraseña
ui-password-again = Repetir la nueva contraseña
ui-password-hint = Elija al menos 12 caracteres. Una frase es fácil de recordar.
ui-passwords-differ = Las dos contraseñas no coinciden.
ui-set-password = Establecer la contraseña
ui-invitation = Le damos la bienvenida a whyflag
ui-account = Cuenta
ui-tokens = Tokens de API
ui-new-token = Nuevo token
ui-shown-once = Copie el valor ahora: solo se muestra esta vez.
ui-create-token = Crear un token
ui-scopes = Permisos
ui-revoke = Revocar
ui-expires = caduca el { $when }
ui-role = Rol
ui-role-analyst = Analista
ui-role-lead = Supervisor
ui-role-admin = Administrador
ui-role-auditor = Auditor
ui-invite = Invitar
ui-invited = Usuario invitado
ui-link-hint = Envíe este enlace al usuario. Caduca a las 24 horas, se puede usar una sola vez y solo se muestra ahora.
ui-invite-hint = Si invita a un usuario que ya existe, este establecerá una contraseña nueva y se cerrarán sus sesiones.
ui-add-proxied = Añadir sin contraseña
ui-with-password = con contraseña
ui-without-password = sin contraseña
ui-disabled = desactivado

## La cola

ui-section = Sección
ui-section-open = Abiertas
ui-section-mine = Mías
ui-section-snoozed = Pospuestas
ui-section-escalated = Escaladas
ui-section-closed = Cerradas
ui-section-all = Todas
ui-queue-summary = mostradas: { $shown } · vencidas: { $breaches }
ui-order = Orden
ui-order-priority = gravedad y, después, plazo
ui-order-loss = pérdida esperada
ui-order-deadline = plazo
ui-order-time = más recientes primero
ui-order-hint-priority = Ordenadas por gravedad y, después, por plazo. La gravedad depende de la pérdida esperada.
ui-order-hint-loss = Ordenadas por pérdida esperada: probabilidad de fraude multiplicada por el importe.
ui-order-hint-deadline = Ordenadas por plazo.
ui-order-hint-time = Ordenadas por la hora del pago, las más recientes primero.
ui-severity-critical = crítica
ui-severity-high = alta
ui-severity-normal = normal
ui-due = Plazo
ui-due-in = vence en { $time }
ui-state-escalated = escalada
ui-overdue = vencida hace { $time }
ui-loss-calculation = { $probability } de { $amount }
ui-why-here = ¿Por qué esta alerta?
ui-no-single-reason = Ningún hecho explica por sí solo esta alerta.
ui-closed-by = { $finding }, por { $name }
ui-claimed-by = asignada a { $name }
ui-yours = asignada a usted
ui-snoozed-until = pospuesta hasta el { $time } UTC
ui-more-than = más de { $n }
ui-more-of-card = otras alertas abiertas de esta tarjeta: { $n }
ui-search = Buscar
ui-search-hint = pago, tarjeta, comercio o alerta (basta el comienzo)
ui-filters = Filtros
ui-more-filters = Más filtros
ui-any = cualquiera
ui-by-card = agrupar por tarjeta
ui-typology = Tipo de fraude probable
ui-assignee = Asignada a
ui-amount-from = Importe desde
ui-amount-to = Importe hasta
ui-age-from = Antigüedad mínima (horas)
ui-age-to = Antigüedad máxima (horas)
ui-view-name = Nombre de la vista
ui-shared-view = para todos
ui-save-view = Guardar como vista
ui-delete-view = Eliminar la vista
ui-first-page = A la primera página
ui-skip-alert = Omitir
ui-open-next = Abrir la siguiente alerta
ui-judge-all = Dictaminar todas las mostradas

## Dictámenes

ui-closing-reason = motivo de cierre
ui-reason-customer_denied = el cliente no reconoce el pago
ui-reason-customer_confirmed = el cliente confirma el pago
ui-reason-known_pattern = patrón de fraude conocido
ui-reason-usual_behaviour = comportamiento habitual de esta tarjeta
ui-reason-merchant_confirmed = el comercio confirma el pago
ui-reason-duplicate = duplicado de otra alerta
ui-reason-needs_senior = debe decidir un supervisor
ui-reason-other = otro motivo
ui-verdict-waiting = se puede deshacer
ui-verdict-leaving = se está enviando
ui-verdict-published = enviado
ui-verdict-undone = deshecho
ui-verdict-recorded = Dictamen «{ $finding }» registrado. Se puede deshacer durante { $left }.
ui-claim = Asignarse
ui-release = Liberar
ui-snooze = Posponer
ui-snooze-for = Posponer durante
ui-wake = Reactivar
ui-escalated-to-leads = escalada: decide un supervisor
ui-conflict = Dos dictámenes sobre una misma alerta
ui-conflict-hint = La alerta ha cambiado desde que usted la abrió. Compare los dos dictámenes y elija uno.
ui-their-verdict = Dictamen vigente
ui-your-verdict = Su dictamen, no registrado
ui-verdict-was-undone = El dictamen anterior se deshizo: la alerta vuelve a estar abierta.
ui-keep-theirs = Mantenerlo y abrir la alerta
ui-give-mine = Registrar mi dictamen en su lugar
ui-bulk = Un mismo dictamen para varias alertas
ui-bulk-preview = Las primeras alertas
ui-bulk-none = El filtro no muestra ninguna alerta abierta.
ui-bulk-too-many = El filtro muestra más de 10.000 alertas: acótelo.
ui-bulk-hint = El dictamen se aplica a todas las alertas del filtro que nadie más se haya asignado ni haya cambiado desde esta vista previa.
ui-bulk-title = Dictamen n.º { $number } para varias alertas: { $finding }, por { $by } el { $when } UTC
ui-bulk-was-undone = Este dictamen se deshizo.
ui-bulk-recent = Últimos dictámenes sobre muchas alertas
ui-bulk-waiting = aún sin dictamen
ui-bulk-done = con dictamen
ui-bulk-claimed = sin dictamen: en manos de otra persona
ui-bulk-changed = sin dictamen: hubo cambios posteriores
ui-bulk-undone = dictamen deshecho
ui-bulk-left = dictamen no deshecho: ya se había enviado o sustituido

## El asistente

ui-assistant = Preguntar sobre esta alerta
ui-question = Pregunta
ui-question-hint = sin pregunta, el asistente investiga la alerta
ui-ask = Preguntar
ui-answer-figures = { $model } · { $steps ->
    [one] { $steps } respuesta
   *[other] { $steps } respuestas
 } · { $tokens } tokens · { $time } · { $checked ->
    [one] { $checked } frase comprobada
   *[other] { $checked } frases comprobadas
 }, { $refused ->
    [one] { $refused } rechazada
   *[other] { $refused } rechazadas
 }
ui-fact = Hecho
ui-habit = Hábito

## Tarjetas, comercios y dispositivos

ui-card-page = Tarjeta
ui-merchant-page = Comercio
ui-device-page = Dispositivo
ui-kind-card = tarjeta
ui-kind-merchant = comercio
ui-kind-device = dispositivo
ui-alerts-open = alertas abiertas
ui-payments = pagos en 90 días
ui-cards = tarjetas en 90 días
ui-devices = dispositivos
ui-reported-frauds = fraudes notificados
ui-online-share = por internet
ui-all-alerts = Todas las alertas en la cola
ui-ago = Hace
ui-links = Vínculos por alertas
ui-links-picture = Tarjetas, comercios y dispositivos que comparten alertas con { $value }
ui-links-table = Vínculos en una tabla
ui-linked-to = Vinculada con
ui-with-fraud = con fraude
ui-hidden-nodes = { $n } más sin mostrar.
ui-hops-1 = Mostrar solo los vínculos directos
ui-hops-2 = Mostrar también los vínculos de segundo grado
ui-on-list-block = En la lista de bloqueo hasta el { $until }.
ui-on-list-allow = En la lista de permitidos hasta el { $until }.

## Listas y siguientes pasos

ui-lists-hint = Las reglas se refieren a estas listas con nombres como block_card y allow_merchant. Un cambio surte efecto cuando otra persona lo aprueba.
ui-list = Lista
ui-list-block = lista de bloqueo
ui-list-allow = lista de permitidos
ui-entries = Entradas
ui-expires-on = Caduca el
ui-proposals = Propuestas
ui-all-proposals = mostrar todas
ui-only-pending = mostrar solo las pendientes
ui-propose = Proponer
ui-propose-entry = Proponer una entrada de lista
ui-propose-removal = Proponer su eliminación
ui-proposal-add = Añadir { $value } a la { $list } hasta el { $until }
ui-proposal-remove = Quitar { $value } de la { $list }
ui-proposal-steps = Sustituir la tabla de siguientes pasos
ui-proposed-by = propuesta por { $name } el { $when } UTC
ui-proposal-pending = pendiente
ui-proposal-approved = aprobada por { $name }
ui-proposal-rejected = rechazada por { $name }
ui-proposal-withdrawn = retirada por { $name }
ui-approve-proposal = Aprobar
ui-reject = Rechazar
ui-withdraw = Retirar
ui-next-steps = Siguientes pasos
ui-next-steps-hint = Para cada alerta se sugiere el primer paso cuyas condiciones se cumplan. Una tabla aprobada se aplica a las alertas nuevas en 30 segundos como máximo.

## Supervisión

ui-figure-backlog = en espera
ui-figure-breached = vencidas
ui-figure-raised = generadas al día
ui-figure-closed = cerradas al día
ui-figure-days-of-work = días de trabajo pendiente
ui-figure-median = mediana del tiempo hasta el dictamen
ui-figure-verdicts = dictámenes
ui-verdict-mix = fraude: { $fraud } · legítimo: { $legitimate } · escalado: { $escalated }
ui-work-picture = Alertas generadas y cerradas al día
ui-table-backlog = Trabajo pendiente
ui-table-work = Actividad por día
ui-table-themes = Precisión por tema
ui-table-rules = Precisión por regla
ui-table-bundles = Precisión por modelo
ui-table-people = Dictámenes por persona
ui-table-thresholds = Efecto de otros umbrales (prueba retrospectiva del modelo)
ui-column-severity = Gravedad
ui-column-open-count = Abiertas
ui-column-escalated-count = Escaladas
ui-column-breached = Vencidas
ui-column-oldest = Antigüedad máxima
ui-column-day = Día
ui-column-raised = Generadas
ui-column-closed = Cerradas
ui-column-closed-late = Cerradas fuera de plazo
ui-column-theme = Tema
ui-column-rule = Regla
ui-column-bundle = Modelo
ui-column-frauds = Fraudes
ui-column-legitimate = Legítimos
ui-column-precision = Precisión
ui-column-person = Persona
ui-column-verdicts = Dictámenes
ui-column-frauds-found = Fraudes detectados
ui-column-threshold = Umbral
ui-column-alerts-per-day = Alertas al día
ui-column-recall = Fraudes detectados
ui-column-amount-caught = Importe fraudulento detectado

## Webhooks

ui-add-webhook = Añadir un webhook
ui-webhook-secret = Clave secreta del nuevo webhook
ui-webhook-hint = whyflag envía a esta dirección notificaciones firmadas, conforme a la especificación Standard Webhooks.
ui-events = Eventos
ui-event = Evento
ui-event-alert = alerta nueva
ui-event-verdict = dictamen
ui-failed-deliveries = Entregas fallidas
ui-delivery-waiting = se reintenta
ui-delivery-delivered = entregada más tarde
ui-delivery-failed = sin más intentos
ui-attempts = Intentos
ui-repeat = Reintentar
