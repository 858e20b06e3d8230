# Words of the console.

ui-fraud-key = fraude
ui-legitimate-key = legítimo
ui-escalate-key = escalar
ui-queue = cola
ui-outcome = Resultado
ui-probability = Probabilidad
ui-expected-loss = Pérdida esperada
ui-reasons = Motivos por tema
ui-without = sin este tema: { $share }
ui-nothing-telling = nada que distinga el fraude de los pagos legítimos
ui-on-its-way = La explicación está en camino.
ui-reasons-hint = Los puntos son log-odds: el rojo habla a favor de que sea fraude y el azul, en contra. «Sin este tema» es la probabilidad que habría si el tema no dijera nada. Los porcentajes se refieren a los pagos con los que se entrenó el modelo.
ui-habits = Hábitos junto a este pago
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
ui-verdict-given = Dictamen: { $finding }, por { $analyst } el { $when } UTC. Un dictamen nuevo lo sustituye.
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
ui-investigate = Pedir al modelo de lenguaje que lo examine
ui-investigate-hint = Lee los pagos y las alertas de esta tarjeta y de este comercio, y los casos similares, con herramientas de solo lectura. Coloca hechos comprobados; no decide nada.
ui-under-way = En curso desde el { $when } UTC …
ui-broken-down = La investigación que inició { $by } el { $when } UTC falló: véase el registro de la consola.
ui-nothing-passed = Ninguna de sus frases superó la comprobación.
ui-transcript = Transcripción
ui-others = Otras alertas de esta tarjeta, este dispositivo y este comercio
ui-same-card = misma tarjeta
ui-same-device = mismo dispositivo
ui-same-merchant = mismo comercio
ui-open = abierta
ui-none = Ninguna.
ui-facts = Todos los hechos
ui-decline = rechazado
ui-review = revisión
ui-approve = aprobado
ui-finding-fraud = fraude
ui-finding-legitimate = legítimo
ui-finding-escalate = escalar
ui-merchant-column = Comercio
ui-top-reason = Motivo principal
ui-open-alerts = Alertas abiertas
ui-counts = { $open ->
    [one] 1 abierta
   *[other] { $open } abiertas
 } · { $fraud ->
    [one] 1 fraude
   *[other] { $fraud } fraudes
 } · { $legitimate ->
    [one] 1 legítimo
   *[other] { $legitimate } legítimos
 } · { $escalated ->
    [one] 1 escalada
   *[other] { $escalated } escaladas
 }
ui-card = Tarjeta
ui-previous = anterior
ui-next = siguiente
ui-order-hint = Ordenadas por pérdida esperada: probabilidad de fraude multiplicada por el importe.
ui-empty-queue = No hay alertas abiertas. Las nuevas aparecen aquí solas.
ui-move = moverse
ui-open-alert = abrir
ui-score-picture = Contribuciones a la puntuación en log-odds
ui-amounts-picture = Importes de los últimos pagos de la tarjeta en { $currency }, según el tiempo transcurrido hasta este
ui-this = este pago
ui-before-this = { $ago } antes
ui-honest = legítimos
ui-frauds = fraudes
ui-points = puntos
ui-rarity-hint = Proporción de los pagos legítimos y de los fraudes de los datos de entrenamiento que tienen un valor al menos igual de extremo
ui-higher-than-all = { $amount }: más alto que todos
