# Español. Estructura y nombres como en en.ftl.
#
# Delante de « i » e « hi » la conjunción « y » pasa a « e »: ningún .clause, .short ni .label empieza por esos sonidos.

## De qué trata un hecho

subject-word = { $subject ->
    [card] tarjeta
    [merchant] comercio
    [device] dispositivo
   *[transaction] pago
 }
this-subject = { $subject ->
    [merchant] este comercio
    [device] este dispositivo
   *[card] esta tarjeta
 }
of-subject = { $subject ->
    [merchant] de este comercio
    [device] de este dispositivo
   *[card] de esta tarjeta
 }
at-subject = { $subject ->
    [merchant] en este comercio
    [device] con este dispositivo
   *[card] con esta tarjeta
 }

## Periodos: $window_n y $window_unit; before-days con $days

window-note = { " " }(que terminan { $delay } antes de este pago)
window = { $window_unit ->
    [day] { $window_n ->
        [one] 1 día
       *[other] { $window_n } días
     }
    [hour] { $window_n ->
        [one] 1 hora
       *[other] { $window_n } horas
     }
    [minute] { $window_n ->
        [one] 1 minuto
       *[other] { $window_n } minutos
     }
   *[second] { $window_n ->
        [one] 1 segundo
       *[other] { $window_n } segundos
     }
 }{ $window_note }
before-window = { $window_unit ->
    [day] { $window_n ->
        [one] en las 24 horas anteriores
       *[other] en los { $window_n } días anteriores
     }
    [hour] { $window_n ->
        [one] en la hora anterior
       *[other] en las { $window_n } horas anteriores
     }
    [minute] { $window_n ->
        [one] en el minuto anterior
       *[other] en los { $window_n } minutos anteriores
     }
   *[second] { $window_n ->
        [one] en el segundo anterior
       *[other] en los { $window_n } segundos anteriores
     }
 }{ $window_note }
before-days = { $days ->
    [one] en las 24 horas anteriores
   *[other] en los { $days } días anteriores
 }

## Un valor junto a lo habitual y junto a los pagos legítimos y los fraudes

with-usual = { $words }, frente a un valor habitual de { $usual }
with-label = { $label } ({ subject-word }): { $value }
honest-percent = el { $share } de los pagos legítimos
honest-one-in = 1 de cada { $n } pagos legítimos
honest-none = ninguno de los pagos legítimos de la muestra
fraud-percent = el { $share } de los fraudes
fraud-one-in = 1 de cada { $n } fraudes
fraud-none = ninguno de los fraudes de la muestra
contrast-high = valor igual o superior: { $honest } y { $fraud }
contrast-low = valor igual o inferior: { $honest } y { $fraud }
contrast-flag = en el mismo caso: { $honest } y { $fraud }
contrast-late = a esta hora del día o más tarde: { $honest } y { $fraud }
contrast-early = a esta hora del día o antes: { $honest } y { $fraud }
contrast-late-in-week = en este día de la semana o en uno posterior (de lunes a domingo): { $honest } y { $fraud }
contrast-early-in-week = en este día de la semana o en uno anterior (de lunes a domingo): { $honest } y { $fraud }
contrast-long = tiempo igual o mayor: { $honest } y { $fraud }
contrast-recent = tiempo igual o menor: { $honest } y { $fraud }
yes = sí
no = no
unknown = desconocido

## Frases

capital-after-colon = no
opening-strongest-for-fraud-theme = el argumento más fuerte a favor de que sea fraude, el tema «{ $theme }»: { $rest }
opening-strongest-against-fraud-theme = el argumento más fuerte en contra de que sea fraude, el tema «{ $theme }»: { $rest }
opening-also = además: { $rest }
opening-for-fraud = a favor de que sea fraude: { $rest }
opening-against-fraud = en contra de que sea fraude: { $rest }
opening-strongest-for-fraud = el argumento más fuerte a favor de que sea fraude: { $rest }
opening-strongest-against-fraud = el argumento más fuerte en contra de que sea fraude: { $rest }
opening-usual = habitual en esta tarjeta: { $rest }
joiner-and = { $left } y { $right }
joiner-but = { $left }, pero { $right }
joiner-semicolon = { $left }; { $right }
joiner-comma = { $left }, { $right }
with-contrast = { $words } ({ $contrast })
part-what_happened = Qué ha ocurrido
part-why_unusual = Por qué es inusual
part-similar_cases = Casos similares
part-speaks_against = Qué habla en contra de que sea fraude
part-next_step = Siguiente paso

## Temas

code-theme-amount = Importe frente a lo habitual en la tarjeta
code-theme-pace = Ritmo de los pagos
code-theme-small-amounts = Importes muy pequeños
code-theme-place = Lugar y desplazamientos
code-theme-device = Dispositivo y canal
code-theme-time = Hora del día
code-theme-merchant-kind = Tipo de comercio
code-theme-reported-fraud = Fraude notificado
code-theme-merchant-activity = Actividad y precios del comercio

## Palabras fijas

code-online = por internet
code-card-present = con tarjeta presente
code-unknown = por un canal desconocido
code-no-country = país desconocido
code-fraud = fraude
code-legitimate = legítimo
code-field-mcc = la categoría
code-field-country = el país
code-field-channel = el canal
code-field-device = el dispositivo
code-card-testing = prueba de tarjetas
code-stolen-card = tarjeta robada
code-compromised-terminal = terminal comprometido
code-account-takeover = toma de control de la cuenta
code-impossible-travel = viaje imposible
code-slow-skimming = skimming lento
code-friendly-fraud = fraude amistoso
code-other = otra clase

## El pago y su puntuación

payment =
    .clause = se hizo un pago de { $amount } { $channel } ({ $country }) el { $when } UTC
    .short = un pago de { $amount } { $channel } el { $when } UTC
payment-first =
    .clause = no hubo ningún pago de esta tarjeta en las semanas anteriores
    .short = ningún pago en las semanas anteriores
payment-recent =
    .clause = { $recent ->
        [one] el último pago de la tarjeta { $hour ->
            [0] no se hizo
           *[other] se hizo
         }
       *[other] de los últimos { $recent } pagos de la tarjeta, { $hour ->
            [0] ninguno se hizo
            [one] 1 se hizo
           *[other] { $hour } se hicieron
         }
     } en la hora anterior
    .short = { $hour } de { $recent ->
        [one] 1 pago
       *[other] { $recent } pagos
     } en la hora anterior
score =
    .clause = la probabilidad de fraude según el modelo es del { $probability }: de cada 100 pagos con una puntuación como esta, { $hundred ->
        [0] menos de 1 es
        [1] aproximadamente 1 es
       *[other] aproximadamente { $hundred } son
     } fraude (se revisa a partir del { $review })
    .short = una probabilidad de fraude del { $probability }
score-few =
    .clause = la probabilidad de fraude según el modelo es del { $probability }, pero pocos pagos han tenido una puntuación como esta, de modo que entre { $low } y { $high } de cada 100 pueden ser fraude (intervalo del 95 %; se revisa a partir del { $review })
    .short = una probabilidad de fraude del { $probability } a partir de pocos pagos comparables
score-elsewhere =
    .clause = otro modelo dio una probabilidad de fraude del { $probability }
    .short = una probabilidad de fraude del { $probability } según otro modelo
unscored =
    .clause = ningún modelo pudo puntuar este pago
    .short = ninguna puntuación
doubt-late =
    .clause = este pago llegó demasiado tarde al sistema, por lo que solo se conoce en parte lo que ocurrió en torno a él
    .short = un pago que llegó demasiado tarde
doubt-reused =
    .clause = una compra anterior con esta tarjeta ya tenía el identificador de este pago
    .short = un identificador de pago reutilizado
doubt-currency =
    .clause = no hay tipo de cambio para { $currency }, por lo que los importes no se tuvieron en cuenta en la puntuación
    .short = ningún tipo de cambio para { $currency }
other-bundle =
    .clause = el modelo { $raised } generó esta alerta y este proceso tiene el modelo { $here }, por lo que no se conocen los motivos de la puntuación
    .short = una puntuación de otro modelo
novel =
    .clause = en su conjunto, este pago es más inusual que casi todos los pagos de los datos de entrenamiento
    .short = un pago inusual en su conjunto
rule =
    .clause = la regla { $rule } se cumple en este pago
    .short = la regla { $rule }
missing =
    .clause = con este pago no se indicó { $field }
    .short = { $field } sin indicar
theme =
    .clause = el tema «{ $theme }» { $side ->
        [fraud] eleva
        [legitimate] reduce
       *[neither] no cambia
     } la puntuación; sin él, la probabilidad sería del { $without }
    .short = el tema «{ $theme }»
balance =
    .clause = { $fraud ->
        [0] ninguno de los temas que explican la puntuación habla
        [one] 1 de los temas que explican la puntuación habla
       *[other] { $fraud } de los temas que explican la puntuación hablan
     } a favor de que sea fraude y { $against ->
        [0] ninguno habla
        [one] 1 habla
       *[other] { $against } hablan
     } en contra
    .short = { $fraud ->
        [one] 1 tema
       *[other] { $fraud } temas
     } a favor de que sea fraude y { $against } en contra
balance-one-sided =
    .clause = ningún tema de los que explican la puntuación habla en contra de que sea fraude
    .short = ningún tema en contra de que sea fraude
earlier =
    .clause = { $text }
    .short = { $text }
step =
    .clause = { $text_es }
    .short = { $text_es }

## Características

feature-amount =
    .clause = el importe es de { $value }
    .label = cuantía
feature-hour =
    .clause = la hora de este pago es { $value } UTC
    .label = hora del día
feature-weekday =
    .clause = este pago se hizo un { $value }
    .label = día de la semana
feature-weekend =
    .clause = este pago se hizo { $value ->
        [yes] en fin de semana
       *[no] en día laborable
     }
    .label = fin de semana
feature-night =
    .clause = este pago { $value ->
        [yes] se hizo
       *[no] no se hizo
     } de noche (UTC)
    .label = de noche
feature-online =
    .clause = { $value ->
        [yes] este pago se hizo por internet
       *[no] la tarjeta estaba presente en el comercio
     }
    .label = por internet
feature-count =
    .clause = { this-subject } { $value ->
        [0] no registró ningún pago
        [one] registró 1 pago
       *[other] registró { $value } pagos
     } en { window }
    .label = pagos en { window }
feature-amount-sum =
    .clause = { $subject ->
        [merchant] este comercio cobró
       *[card] esta tarjeta gastó
     } { $value } en { window }
    .label = suma en { window }
feature-amount-mean =
    .clause = el importe medio { of-subject } en { window } es de { $value }
    .label = media de los importes en { window }
feature-amount-ratio =
    .clause = el importe es { $value } veces el importe medio { of-subject } en { window }
    .label = relación entre el importe y la media de { window }
feature-low-count =
    .clause = { this-subject } { $value ->
        [0] no registró ningún pago muy pequeño
        [one] registró 1 pago muy pequeño
       *[other] registró { $value } pagos muy pequeños
     } en { window }
    .label = pagos muy pequeños en { window }
feature-low-share =
    .clause = el { $value } de los pagos { at-subject } en { window } fueron muy pequeños
    .label = proporción de pagos muy pequeños en { window }
feature-amount-max =
    .clause = el importe más alto { of-subject } en { window } es de { $value }
    .label = mayor importe en { window }
feature-amount-to-max =
    .clause = el importe es { $value } veces el importe más alto { of-subject } { before-window }
    .label = relación entre el importe y el más alto de { window }
feature-amount-zscore =
    .clause = la distancia del importe a la media { of-subject } en { window } es de { $value } desviaciones típicas suavizadas
    .label = desviación del importe respecto a la media de { window }
feature-distinct-merchants =
    .clause = { this-subject } { $value ->
        [0] no pagó en ningún comercio
        [one] pagó en 1 comercio
       *[other] pagó en { $value } comercios distintos
     } en { window }
    .label = comercios en { window }
feature-distinct-countries =
    .clause = { this-subject } { $value ->
        [0] no se usó en ningún país
        [one] se usó en 1 país
       *[other] se usó en { $value } países
     } en { window }
    .label = países en { window }
feature-new-merchant =
    .clause = { this-subject } { $value ->
        [yes] no había pagado
       *[no] ya había pagado
     } en este comercio { before-window }
    .label = comercio nuevo
feature-new-country =
    .clause = { this-subject } { $value ->
        [yes] no se había usado
       *[no] ya se había usado
     } en este país { before-window }
    .label = país nuevo
feature-category-share =
    .clause = el { $value } de los pagos { at-subject } { before-window } fueron de esta categoría
    .label = proporción de esta categoría
feature-night-share =
    .clause = el { $value } de los pagos { at-subject } { before-window } se hicieron de noche
    .label = proporción de noche
feature-online-share =
    .clause = el { $value } de los pagos { at-subject } { before-window } se hicieron por internet
    .label = proporción por internet
feature-burst =
    .clause = contando este pago, la frecuencia de pagos { of-subject } en { window } es { $value } veces la media
    .label = relación entre la frecuencia de pagos en { window } y la media
feature-fraud-count =
    .clause = { $value ->
        [0] no consta como fraude ningún pago
        [one] consta como fraude 1 pago
       *[other] constan como fraude { $value } pagos
     } { at-subject } en { window }
    .label = fraudes conocidos en { window }
feature-fraud-share =
    .clause = el { $value } de los pagos { at-subject } en { window } constan como fraude
    .label = proporción de fraudes conocidos en { window }
feature-max-to-normal =
    .clause = el importe más alto { of-subject } { before-window } es { $value } veces su importe normal estimado
    .label = relación entre el importe más alto de { window } y el normal
feature-unusual-count =
    .clause = { this-subject } { $value ->
        [0] no registró ningún pago de importe inusual
        [one] registró 1 pago de importe inusual
       *[other] registró { $value } pagos de importe inusual
     } { before-window }
    .label = pagos de importe inusual en { window }
feature-first-unusual =
    .clause = el primer importe inusual { of-subject } { before-window } se registró { $value } días antes de este pago
    .label = días desde el primer importe inusual en { window }
feature-last-unusual =
    .clause = el último importe inusual { of-subject } { before-window } se registró { $value } días antes de este pago
    .label = días desde el último importe inusual en { window }
feature-first-fraud =
    .clause = el primer fraude conocido { at-subject } en { window } se produjo { $value } días antes de este pago
    .label = días desde el primer fraude conocido en { window }
feature-last-fraud =
    .clause = el último fraude conocido { at-subject } en { window } se produjo { $value } días antes de este pago
    .label = días desde el último fraude conocido en { window }
feature-seconds-since-last =
    .clause = el pago anterior a este se hizo { $value } antes
    .label = tiempo desde el último pago
feature-distance =
    .clause = este pago se hizo a { $value } del último lugar en el que la tarjeta estuvo presente
    .label = distancia al último lugar en el que la tarjeta estuvo presente
feature-speed =
    .clause = llegar aquí desde el último lugar en el que la tarjeta estuvo presente exige una velocidad de { $value }
    .label = velocidad de desplazamiento
feature-new-device =
    .clause = { this-subject } { $value ->
        [yes] no se había usado últimamente
       *[no] se había usado últimamente
     } con este dispositivo
    .label = dispositivo nuevo
feature-amount-to-normal =
    .clause = el importe es { $value } veces el importe normal estimado { of-subject }
    .label = relación entre el importe y el normal
feature-recent-to-normal =
    .clause = la media de los tres últimos importes { of-subject } es { $value } veces su importe normal estimado
    .label = relación entre los últimos importes y el normal
feature-fraud-reports =
    .clause = { $value ->
        [0] no se notificó ningún fraude
        [one] se notificó 1 fraude
       *[other] se notificaron { $value } fraudes
     } { at-subject } en { window }
    .label = fraudes notificados en { window }
feature-fraud-report-share =
    .clause = la tasa suavizada de fraude notificado { at-subject } en { window } es del { $value }
    .label = tasa de fraude notificado en { window }
feature-usual-fraud-count =
    .clause = { $value ->
        [0] no consta como fraude ningún pago { at-subject } en { window } cuyo importe fuera habitual para su tarjeta
        [one] consta como fraude 1 pago { at-subject } en { window }, aunque su importe era habitual para su tarjeta
       *[other] constan como fraude { $value } pagos { at-subject } en { window }, aunque sus importes eran habituales para sus tarjetas
     }
    .label = fraudes conocidos de importe habitual en { window }
feature-usual-fraud-share =
    .clause = el { $value } de los pagos { at-subject } en { window } constan como fraude, aunque sus importes eran habituales para sus tarjetas
    .label = proporción de fraudes conocidos de importe habitual en { window }
feature-first-usual-fraud =
    .clause = el primer fraude conocido { at-subject } en { window } con un importe habitual para su tarjeta se produjo { $value } días antes de este pago
    .label = días desde el primer fraude de importe habitual en { window }
feature-last-usual-fraud =
    .clause = el último fraude conocido { at-subject } en { window } con un importe habitual para su tarjeta se produjo { $value } días antes de este pago
    .label = días desde el último fraude de importe habitual en { window }
feature-last-legitimate =
    .clause = el último pago { at-subject } en { window } que no consta como fraude se hizo { $value } días antes de este pago
    .label = días desde el último pago sin fraude conocido en { window }

## El pasado

archive-missing =
    .clause = no se pudo leer el archivo de pagos anteriores, por lo que no se conocen los hábitos ni los historiales
    .short = ningún archivo de pagos anteriores
archive-behind =
    .clause = el archivo aún no contiene este pago, por lo que los últimos pagos pueden faltar en los hábitos y los historiales
    .short = un archivo con retraso
archive-young =
    .clause = el archivo solo se remonta a { $days ->
        [one] 1 día
       *[other] { $days } días
     } atrás
    .short = un archivo de { $days ->
        [one] 1 día
       *[other] { $days } días
     }
habit-none =
    .clause = el archivo no contiene ningún pago de esta tarjeta { before-days }
    .short = ningún pago anterior de esta tarjeta
habit-amount =
    .clause = { $payments ->
        [one] de 1 pago anterior
       *[other] de los { $payments } pagos anteriores
     } de esta tarjeta, la mitad no supera { $median } y el 95 % no supera { $high }; este importe es más alto que el del { $rank } de esos pagos
    .short = cuantías habituales de hasta { $median } (la mitad) y { $high } (el 95 %)
habit-hours =
    .clause = el { $share } de los pagos de esta tarjeta se hacen entre las { $begin } y las { $end } UTC, como este
    .short = el { $share } de los pagos entre las { $begin } y las { $end } UTC
habit-channel =
    .clause = el { $share } de los pagos de esta tarjeta se hacen { $channel }, como este
    .short = el { $share } de los pagos { $channel }
habit-category =
    .clause = el { $share } de los pagos de esta tarjeta son de la categoría «{ $category }», como este
    .short = el { $share } de los pagos en la categoría «{ $category }»
habit-place =
    .clause = este pago se hizo a { $distance } de la zona habitual de la tarjeta, donde se hace el { $share } de sus pagos en tiendas con ubicación conocida
    .short = una distancia de { $distance } a la zona habitual de la tarjeta
habit-merchant-new =
    .clause = esta tarjeta no hizo ningún pago aquí { before-days }
    .short = un comercio nuevo para la tarjeta
habit-merchant =
    .clause = esta tarjeta ya había pagado aquí { $payments ->
        [one] una vez
       *[other] { $payments } veces
     }
    .short = { $payments ->
        [one] 1 pago anterior
       *[other] { $payments } pagos anteriores
     } aquí
habit-merchant-largest =
    .clause = esta tarjeta ya había pagado aquí { $payments ->
        [one] una vez
       *[other] { $payments } veces
     } (importe máximo: { $largest })
    .short = { $payments ->
        [one] 1 pago anterior
       *[other] { $payments } pagos anteriores
     } aquí (importe máximo: { $largest })
device-new =
    .clause = esta tarjeta no usó este dispositivo { before-days }
    .short = un dispositivo nuevo para la tarjeta
device-known =
    .clause = esta tarjeta usó este dispositivo { $payments ->
        [one] una vez, el { $first }
       *[other] { $payments } veces entre el { $first } y el { $last }
     }
    .short = un dispositivo usado { $payments ->
        [one] una vez
       *[other] { $payments } veces
     } antes
device-shared =
    .clause = { $cards ->
        [one] otra tarjeta usó
       *[other] otras { $cards } tarjetas usaron
     } este dispositivo { before-days }
    .short = un dispositivo de { $cards ->
        [one] otra tarjeta
       *[other] otras { $cards } tarjetas
     }
merchant-history =
    .clause = este comercio { $payments ->
        [0] no registró ningún pago
        [one] registró 1 pago
       *[other] registró { $payments } pagos
     } de { $cards ->
        [0] ninguna tarjeta
        [one] 1 tarjeta
       *[other] { $cards } tarjetas
     } { before-days }; { $frauds ->
        [0] no se notificó ningún fraude
        [one] se notificó 1 fraude
       *[other] se notificaron { $frauds } fraudes con { $cards_with_fraud ->
            [one] 1 tarjeta
           *[other] { $cards_with_fraud } tarjetas
         }
     }
    .short = { $frauds ->
        [0] ningún fraude notificado en este comercio
        [one] 1 fraude notificado en este comercio
       *[other] { $frauds } fraudes notificados en este comercio
     }

## Casos similares

cases-none =
    .clause = no se cerró ningún caso similar antes de esta alerta
    .short = ningún caso similar cerrado
cases-not-searched =
    .clause = no se buscaron casos similares, porque aquí ningún modelo puntuó el pago
    .short = ninguna búsqueda de casos similares
cases =
    .clause = { $cases ->
        [one] de 1 caso cerrado, el más similar
       *[other] de los { $cases } casos cerrados más similares
     }, { $frauds ->
        [0] ninguno fue
        [one] 1 fue
       *[other] { $frauds } fueron
     } fraude y { $legitimate ->
        [0] ninguno fue legítimo
        [one] 1 fue legítimo
       *[other] { $legitimate } fueron legítimos
     }
    .short = { $frauds ->
        [one] 1 fraude
       *[other] { $frauds } fraudes
     } y { $legitimate ->
        [one] 1 pago legítimo
       *[other] { $legitimate } pagos legítimos
     } { $cases ->
        [one] en 1 caso, el más similar
       *[other] entre los { $cases } casos más similares
     }
cases-contradict =
    .clause = los casos similares contradicen la puntuación: { $frauds ->
        [one] 1 de { $cases } fue
       *[other] { $frauds } de { $cases } fueron
     } fraude, pero el modelo da una probabilidad de fraude del { $probability }
    .short = casos similares que contradicen la puntuación
case =
    .clause = un caso cerrado el { $closed } UTC, con una similitud del { $similarity }, fue { $outcome }
    .short = un caso que fue { $outcome }
case-shared =
    .clause = un caso cerrado el { $closed } UTC, con una similitud del { $similarity } y marcado también por el tema «{ $theme }», fue { $outcome }
    .short = un caso que fue { $outcome }, marcado también por el tema «{ $theme }»
difference = { $label }: { $there } en ese caso, { $here } aquí
typology =
    .clause = { $cases ->
        [one] de 1 caso, el más cercano
       *[other] de los { $cases } casos más cercanos
     }, { $support ->
        [0] ninguno fue un fraude
        [one] 1 fue un fraude
       *[other] { $support } fueron fraudes
     } del tipo «{ $typology }»
    .short = el tipo probable «{ $typology }»
typology-fitted =
    .clause = si se trata de un fraude, es del tipo «{ $typology }» con una probabilidad del { $probability } (según un clasificador que acertó en el { $right } de { $cases ->
        [one] 1 caso de fraude cerrado
       *[other] { $cases } casos de fraude cerrados
     })
    .short = el tipo probable «{ $typology }» ({ $probability })

## Qué encuentra una investigación

found-payment =
    .clause = { $ago } antes, la tarjeta pagó { $amount } { $channel } ({ $country })
    .short = un pago de { $amount } { $channel }, { $ago } antes
found-payment-here =
    .clause = { $ago } antes, la tarjeta pagó { $amount } { $channel } ({ $country }) en este comercio
    .short = un pago de { $amount } en este comercio, { $ago } antes
found-alerts =
    .clause = { this-subject } { $alerts ->
        [0] no tuvo ninguna otra alerta
        [one] tuvo otra alerta
       *[other] tuvo otras { $alerts } alertas
     }: { $frauds } con fraude confirmado, { $legitimate } con pago legítimo, { $open } sin cerrar
    .short = { $alerts ->
        [0] ninguna otra alerta
        [one] otra alerta
       *[other] otras { $alerts } alertas
     } { of-subject }
found-linked =
    .clause = { $cards ->
        [0] ninguna otra tarjeta tuvo
        [one] otra tarjeta tuvo
       *[other] otras { $cards } tarjetas tuvieron
     } alertas en este comercio (tarjetas con fraude: { $frauds })
    .short = { $cards ->
        [0] ninguna otra tarjeta
        [one] otra tarjeta
       *[other] otras { $cards } tarjetas
     } con alertas aquí
found-rule =
    .clause = { $text }
    .short = la definición de la regla


rarity-percent = { $share }
rarity-one-in = 1 de cada { $n }
rarity-none = ninguno
