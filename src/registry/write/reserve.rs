//! Draws numbers for a write, and settles them with other servers where there are any.

use super::Target;
use crate::api::error::ApiError;
use crate::registry::allocators::Reservation;
use crate::registry::allocators::claims::{Claimed, Claims, Number};
use crate::registry::errors;
use crate::registry::groups::core::services;
use crate::registry::object::Object;
use crate::registry::service::Registry;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::ServiceCIDR;

/// How often numbers that turn out to be taken are drawn again.
const ATTEMPTS: usize = 16;

impl Registry {
    /// Lets the kind draw what the object needs. With `settle` the numbers are claimed, so that no other server hands
    /// them out; whoever gets the reservation ends it with [`Self::confirm`] or [`Self::undo`].
    pub(in crate::registry) async fn reserve(
        &self,
        target: &Target<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
        settle: bool,
    ) -> Result<Reservation, ApiError> {
        let behaviour = &target.resource.behaviour;
        let of_service = object.downcast_ref::<Service>().is_some();
        if of_service {
            self.know_ranges(&self.read_all::<ServiceCIDR>("")?);
        }
        let claims = self.allocators().claims().filter(|_| settle && of_service);
        let Some(claims) = claims else {
            let mut reservation = Reservation::new(self.allocators());
            return match behaviour.allocate(self.allocators(), object, old, &mut reservation) {
                Ok(()) => Ok(reservation),
                // A range may have been added that the cache does not have yet.
                Err(_) if of_service && self.know_ranges(&self.read_all_latest::<ServiceCIDR>("").await?) => {
                    drop(reservation);
                    let mut reservation = Reservation::new(self.allocators());
                    behaviour.allocate(self.allocators(), object, old, &mut reservation)?;
                    Ok(reservation)
                }
                Err(error) => Err(error),
            };
        };
        let before = object.downcast_ref::<Service>().cloned().unwrap_or_default();
        let owner = before.metadata.uid.clone().unwrap_or_default();
        let mut refreshed = false;
        for _ in 0..ATTEMPTS {
            object.assign(Box::new(before.clone()));
            let mut reservation = Reservation::new(self.allocators());
            if let Err(error) = behaviour.allocate(self.allocators(), object, old, &mut reservation) {
                // Another server may have given back what is taken as far as this one knows.
                drop(reservation);
                if std::mem::replace(&mut refreshed, true) {
                    return Err(error);
                }
                self.know_ranges(&self.read_all_latest::<ServiceCIDR>("").await?);
                self.refresh_pools(claims).await?;
                continue;
            }
            match claims.take(&reservation.taken(), &owner).await.map_err(|e| errors::store(target, e))? {
                Claimed::All(made) => {
                    reservation.claimed(made);
                    return Ok(reservation);
                }
                Claimed::Clash(number) => {
                    drop(reservation);
                    self.allocators().lock().adopt(number);
                }
            }
        }
        Err(ApiError::internal("failed to allocate: other servers took every number that was tried"))
    }

    /// Lets the pool draw from the ranges of these; whether that is new to it. As upstream, a range counts unless its
    /// object is going or is said not to be ready.
    fn know_ranges(&self, all: &[ServiceCIDR]) -> bool {
        let usable = |cidr: &&ServiceCIDR| {
            let conditions = cidr.status.as_ref().and_then(|status| status.conditions.as_deref());
            let ready = conditions.unwrap_or_default().iter().find(|condition| condition.type_ == "Ready");
            cidr.metadata.deletion_timestamp.is_none()
                && ready.is_none_or(|condition| condition.status == "True")
        };
        let ranges = all.iter().filter(usable).filter_map(|cidr| cidr.spec.as_ref()?.cidrs.as_deref());
        self.allocators().lock().ips.set_more(ranges.flatten().map(String::as_str))
    }

    /// The write has succeeded.
    pub(in crate::registry) async fn confirm(&self, object: &dyn Object, reservation: Reservation) {
        let freed = reservation.freed();
        reservation.keep();
        self.give_up(object, &freed).await;
    }

    /// The write has failed, or is not to be.
    pub(in crate::registry) async fn undo(&self, reservation: Reservation) {
        if let Some(claims) = self.allocators().claims() {
            claims.undo(reservation.made()).await;
        }
    }

    /// Gives back what a removed object had taken.
    pub(in crate::registry) async fn released(&self, target: &Target<'_>, object: &dyn Object) {
        target.resource.behaviour.release(self.allocators(), object);
        if let Some(service) = object.downcast_ref::<Service>() {
            self.give_up(object, &services::numbers(service)).await;
        }
    }

    async fn give_up(&self, object: &dyn Object, numbers: &[Number]) {
        if let (Some(claims), Some(owner)) = (self.allocators().claims(), object.meta().uid.as_deref()) {
            claims.give_up(numbers, owner).await;
        }
    }

    /// Fills the pools with what is claimed by any server.
    async fn refresh_pools(&self, claims: &Claims) -> Result<(), ApiError> {
        let services = self.read_all_latest::<Service>("").await?;
        let held = |number: Number, owner: &str| {
            let of_owner = services.iter().find(|service| service.metadata.uid.as_deref() == Some(owner));
            of_owner.is_some_and(|service| services::numbers(service).contains(&number))
        };
        let numbers = claims.all(&held).await.map_err(ApiError::internal)?;
        self.allocators().lock().replace(&numbers);
        Ok(())
    }

    /// Fills the pools from the stored Services and, where there are other servers, claims what is not claimed yet.
    pub(in crate::registry) async fn fill_pools(&self) -> Result<(), ApiError> {
        let all = self.read_all::<Service>("")?;
        {
            let mut pools = self.allocators().lock();
            all.iter().for_each(|service| services::adopt(&mut pools, service));
        }
        let Some(claims) = self.allocators().claims() else { return Ok(()) };
        self.refresh_pools(claims).await?;
        for service in &all {
            let numbers = services::numbers(service);
            let free: Vec<Number> = {
                let pools = self.allocators().lock();
                numbers.into_iter().filter(|number| !pools.has(*number)).collect()
            };
            let owner = service.metadata.uid.as_deref().unwrap_or_default();
            claims.take(&free, owner).await.map_err(ApiError::internal)?;
            let mut pools = self.allocators().lock();
            free.into_iter().for_each(|number| pools.adopt(number));
        }
        Ok(())
    }
}
