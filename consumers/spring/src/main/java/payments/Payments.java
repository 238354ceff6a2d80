package payments;

import java.math.BigDecimal;
import org.springframework.amqp.rabbit.annotation.RabbitListener;
import org.springframework.amqp.support.converter.Jackson2JsonMessageConverter;
import org.springframework.amqp.support.converter.MessageConverter;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;

/** Charges cards for whoever sends a message to its queues. It knows nothing of processes. */
@SpringBootApplication
public class Payments {

  record Payment(String order, BigDecimal amount) {}

  record Receipt(String receipt, BigDecimal charged) {}

  @RabbitListener(queues = "${queue.payments:payments}")
  Receipt pay(Payment payment) {
    if (payment.amount().compareTo(BigDecimal.valueOf(1000)) > 0) {
      throw new IllegalStateException("card declined for " + payment.order());
    }
    return new Receipt("r-" + payment.order(), payment.amount());
  }

  /** Its callers get the exception back instead of an answer. */
  @RabbitListener(queues = "${queue.refunds:refunds}", returnExceptions = "true")
  Receipt refund(Payment payment) {
    throw new UnsupportedOperationException("no refunds for " + payment.order());
  }

  @Bean
  MessageConverter json() {
    return new Jackson2JsonMessageConverter();
  }

  public static void main(String[] arguments) {
    SpringApplication.run(Payments.class, arguments);
  }
}
